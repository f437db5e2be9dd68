"""The arithmetic of the benchmarks: ratios, goals, and what a soak found. Nothing is started here."""

from __future__ import annotations

import pytest

from benchmarks import completion, fairness, load
from benchmarks.results import APP, ENGINE, LLAMA_CPP, USUAL, VLLM, Figures, Finding, Results, findings, table
from benchmarks.soak import Sample, blocks_for_each
from benchmarks.soak import findings as soak_findings
from llama_demo.engines.openvino_messages import BLOCK_TOKENS


def test_ratios_are_of_the_same_crowd_and_goals_are_told_met_or_missed() -> None:
    results = Results(
        reports={
            APP: {
                1: {"decode_rate": 65.0, "per_second": 60.0},
                16: {"per_second": 600.0, "first_max_seconds": 0.7, "probe_p95_seconds": 0.02},
                64: {"per_second": 900.0, "failures": 0},
            },
            ENGINE: {16: {"per_second": 800.0}},
            LLAMA_CPP: {1: {"decode_rate": 100.0}},
            USUAL: {1: {"per_second": 41.0}, 16: {"per_second": 40.0}},
            VLLM: {16: {"per_second": 500.0}},
        },
        next_turn_ratios={ENGINE: 9.0, APP: 2.5},
    )
    found = {finding.words: finding for finding in findings(results)}
    assert [(finding.value, finding.met) for finding in found.values()] == [
        (0.65, True),
        (15.0, True),
        (1.2, True),
        (0.7, False),
        (0.0, True),
        (9.0, True),
        (2.5, False),
        (20.0, True),
        (None, None),
        (0.75, None),
        (None, None),
    ]


def test_what_was_not_measured_is_said_and_is_no_failure() -> None:
    assert all(finding.met is None and "not measured" in finding.line() for finding in findings(Results()))


@pytest.mark.parametrize(("value", "met"), [(0.99, False), (1.0, True), (2.0, True), (2.01, False)])
def test_a_goal_includes_its_limit(value: float, met: bool) -> None:
    assert Finding("x", value, at_least=1.0, at_most=2.0).met is met


def test_a_system_that_was_left_out_stands_in_the_table_with_its_reason() -> None:
    lines = list(table(Results(reports={APP: {4: {"per_second": 12.34}}}, left_out={VLLM: "not installed"})))
    assert lines[1].split() == ["this", "app", "4", "12.3", "-", "-", "-", "-", "-", "-"]
    assert lines[2].endswith("left out: not installed")


def test_a_chat_counts_with_the_whole_blocks_that_no_other_chat_shares() -> None:
    shared = [7] * (BLOCK_TOKENS + 5)
    prompts = [[*shared, number, *([0] * (BLOCK_TOKENS - 6))] for number in range(3)]
    assert len(prompts[0]) == 2 * BLOCK_TOKENS
    assert blocks_for_each(prompts, new_tokens=BLOCK_TOKENS - 1) == 1
    assert blocks_for_each(prompts, new_tokens=BLOCK_TOKENS) == 2


def test_a_soak_compares_the_end_with_the_first_full_cache_and_counts_only_the_models_memory() -> None:
    samples = [Sample(99, 500_000_000, 0), Sample(100, 1_000_000_000, 0), Sample(400, 1_100_000_000, 0)]
    found = {finding.words: finding for finding in soak_findings(samples, 100, 100_000_000, 200_000_000)}
    grown, given_back = (found[words] for words in found if words.endswith("%"))
    assert grown.value == pytest.approx(10.0)
    assert given_back.value == pytest.approx(90.0)
    assert (grown.met, given_back.met) == (False, True)


def test_a_soak_too_short_to_fill_the_cache_says_so() -> None:
    samples = [Sample(99, 500_000_000, 0)]
    grown = next(found for found in soak_findings(samples, 100, 100_000_000, 200_000_000) if "grown" in found.words)
    assert "not measured" in grown.line()


def test_continuations_and_scores_are_told_as_ratios_of_medians() -> None:
    results = completion.Results(
        one=[1.0, 2.0, 9.0],
        several=[4.0, 4.0, 4.0],
        long_one=[1.0],
        long_several=[2.6],
        prefill=[0.5],
        scoring=[2.0],
        added_bytes=299_000_000,
    )
    found = completion.findings(results)
    assert [finding.value for finding in found[:4]] == [2.0, 2.6, 4.0, 299.0]
    assert [finding.met for finding in found[:4]] == [True, False, False, True]
    assert [finding.met for finding in completion.findings(completion.Results())] == [None] * 6


def test_no_text_of_the_benchmark_begins_as_another_and_every_id_is_the_embedded_models() -> None:
    texts = [completion._text(number, 1000) for number in range(-3, 40)]
    assert len({text[:1] for text in texts}) == len(texts)
    assert all(0 < number < 49_152 for text in texts for number in text)


def test_a_load_is_told_by_its_doors_with_what_was_lost_and_beside_the_peer_at_the_same_door() -> None:
    figures: dict[int, Figures] = {16: {"per_second": 800.0, "failures": 0}, 64: {"per_second": 640.0, "failures": 3}}
    results = Results(reports={load.PAGE: figures, load.V1: figures, VLLM: {16: {"per_second": 500.0}}})
    found = {finding.words: finding for finding in load.findings(results, (16, 64), [])}
    kept, lost = found[f"{load.V1}: tokens a second, 64 visitors over 16"], found[f"{load.PAGE}: 64 visitors, lost"]
    assert (kept.value, kept.met, lost.value, lost.met) == (0.8, False, 3, False)
    over = [finding for words, finding in found.items() if "vLLM" in words]
    assert [(finding.value, finding.met) for finding in over] == [(1.6, True), (None, None)]


@pytest.mark.parametrize(("last", "met"), [(1_040_000_000, True), (1_060_000_000, False)])
def test_memory_under_load_is_compared_with_what_it_was_after_three_minutes(last: int, met: bool) -> None:
    sizes = ((1.0, 500_000_000), (3.1, 1_000_000_000), (20.0, 1_200_000_000), (30.2, last))
    samples = [load.Sample(minutes, size, 128, 0) for minutes, size in sizes]
    found = {finding.words: finding for finding in load.findings(Results(), (), samples)}
    assert found["grown meanwhile, %"].met is met
    assert found["requests meanwhile"].value == 512
    short = load.findings(Results(), (), samples[:2])
    assert next(finding for finding in short if finding.words.startswith("grown")).met is None


def test_a_wait_beside_another_visitor_is_held_to_twice_the_idle_one_and_a_step() -> None:
    waits = fairness.Waits(idle=[0.1, 0.2, 0.3], beside=[0.2, 0.3, 0.5], steps=[0.05])
    *_, median, slowest = fairness.findings("public", waits)
    assert median.at_most == pytest.approx(450)
    assert [(finding.value, finding.met) for finding in (median, slowest)] == [(300, True), (500, False)]
