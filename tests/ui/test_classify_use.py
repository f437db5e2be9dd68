"""The classification tab's handlers on the tests' own model: what a visitor asks and what the page then shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_demo.classify import head as heads
from llama_demo.classify.head import Backbone, Head, ProblemType
from llama_demo.classify.results import Explanation, Part, Verdict, Verdicts
from llama_demo.messages import messages
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings
from llama_demo.ui.classify_html import escaped, explanation, results
from llama_demo.ui.classify_use import EXAMPLES, FIELDS, LABELS, ClassifyUse, read_labels, read_texts
from llama_demo.visitors import Role, Visitor

HIDDEN = 128
OWNER = Visitor("", Role.OWNER)
ASKED = {"id": "one", "language": "en"}
BARS = r'<span class="bar-name">(.*?)</span>.*?<span class="bar-value">(.*?) %</span>'


def given(**changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "classifier": LABELS,
        "labels": "sea: water\nland",
        "text": "boats in the harbour",
        "each_line": False,
        "instruction": "",
        "normalise_length": True,
        "correct_prior": True,
        "threshold": 0,
        "explain": False,
        "model": None,
    }
    assert tuple(values) == FIELDS
    return {**values, **changed}


def views(use: ClassifyUse, request: dict[str, Any], language: str = "en") -> list[str]:
    async def read() -> list[str]:
        return [view async for view in use.classify({**ASKED, "language": language}, request, OWNER)]

    return asyncio.run(read())


def shown(runtime: Runtime, **changed: Any) -> str:
    return views(ClassifyUse(runtime), given(**changed))[-1]


def keep_head(
    runtime: Runtime,
    name: str,
    rows: int = 3,
    kind: ProblemType = "single_label_classification",
    model: str = "",
) -> None:
    drawn = np.random.default_rng(0).normal(size=(rows, HIDDEN)).astype(np.float32)
    labels = tuple(f"label {number}" for number in range(rows))
    head = Head(name, labels, drawn, "Say: {text}\nIt is", Backbone(model or runtime.default_model), kind)
    path = runtime.classification.heads.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    heads.save(head, path)


def test_one_text_gives_a_bar_for_every_label_and_a_decision(runtime: Runtime) -> None:
    page = shown(runtime)
    bars = dict(re.findall(BARS, page))
    assert set(bars) == {"sea", "land"}
    assert sum(map(float, bars.values())) == pytest.approx(100, abs=0.11)
    likeliest = max(bars, key=lambda name: float(bars[name]))
    assert f'<p class="decision">{likeliest} · {bars[likeliest]} %</p>' in page


def test_two_hundred_labels_have_two_hundred_bars_the_likeliest_first(runtime: Runtime) -> None:
    page = shown(runtime, labels="\n".join(f"label {number}" for number in range(200)))
    values = [float(value) for _, value in re.findall(BARS, page)]
    assert len(values) == 200
    assert values == sorted(values, reverse=True)


def test_many_texts_give_a_table_with_a_row_each(runtime: Runtime) -> None:
    page = shown(runtime, text="the boats\n\n  the bread \n<b>the net</b>", each_line=True)
    assert page.count("<tr>") == 1 + 3
    assert "<td>the bread</td>" in page
    assert "<td>&lt;b&gt;the net&lt;/b&gt;</td>" in page


def test_each_correction_changes_what_is_found(runtime: Runtime) -> None:
    plain = re.findall(BARS, shown(runtime, labels="sea\nthe old town"))
    for option in ("normalise_length", "correct_prior"):
        assert re.findall(BARS, shown(runtime, labels="sea\nthe old town", **{option: False})) != plain


def test_below_the_threshold_no_label_is_named(runtime: Runtime) -> None:
    page = shown(runtime, threshold=1)
    assert "No label reaches 100.0 %" in page
    assert 'class="decision abstained"' in page
    assert "class=marked" not in page


def test_a_trained_head_answers_and_says_what_was_cut(runtime: Runtime) -> None:
    keep_head(runtime, "mine")
    page = shown(runtime, classifier="mine", text="boats " * 900)
    assert len(re.findall(BARS, page)) == 3
    assert re.search(r"The last \d+ characters did not fit", page)
    assert "trained head mine" in page


@pytest.mark.parametrize(
    ("kind", "words"), [("multi_label_classification", "label 0"), ("regression", "label 0: ")], ids=["multi", "value"]
)
def test_heads_of_several_labels_and_of_values_are_shown_as_such(
    runtime: Runtime, kind: ProblemType, words: str
) -> None:
    name = kind.replace("_", " ")
    keep_head(runtime, name, kind=kind)
    page = shown(runtime, classifier=name)
    assert words in page
    assert "No label reaches" not in page


def test_the_list_names_labels_first_then_the_kept_heads(runtime: Runtime) -> None:
    keep_head(runtime, "listed")
    choices = ClassifyUse(runtime).classifiers("ko", OWNER)
    assert choices[0] == (messages("ko")("classify.zero_shot"), LABELS)
    assert ("listed", "listed") in choices


def test_a_file_without_its_numbers_never_yields_one(runtime: Runtime, tmp_path: Path) -> None:
    path = runtime.classification.heads.path("empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"model.norm.weight": np.ones(4, np.float32)}, path)
    made = views(ClassifyUse(runtime), given(classifier="empty"))
    assert "no trained head" in made[-1]
    assert not any("%" in view or "bar-value" in view for view in made)


def test_a_checkpoint_without_score_weight_is_listed_and_refused_without_a_number(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
    (folder / "config.json").write_text(json.dumps(config))
    with Runtime(read_settings({"model": str(folder), "cache_dir": str(tmp_path), "memory_gb": "2"}, {})) as headless:
        use = ClassifyUse(headless)
        assert headless.default_model in dict(use.classifiers("en", OWNER))
        made = views(use, given(classifier=headless.default_model, explain=True))
    assert "there is no score.weight" in made[-1]
    assert not any("%" in view or "bar-value" in view for view in made)


def test_a_head_of_another_model_is_refused_with_the_reason(runtime: Runtime) -> None:
    keep_head(runtime, "elsewhere", model="llama-2-70b")
    page = shown(runtime, classifier="elsewhere")
    assert "llama-2-70b" in page
    assert "bar-value" not in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": "alone"}, "2 to 200"),
        ({"labels": ""}, "2 to 200"),
        ({"labels": "twice\ntwice"}, "twice is there twice"),
        ({"labels": ": a description\nother"}, "empty"),
        ({"text": "  "}, "empty"),
        ({"text": "\n\n", "each_line": True}, "empty"),
        ({"text": "\ud800"}, "broken character"),
        ({"text": None}, "text is None"),
        ({"classifier": "nobody"}, "no classifier named nobody"),
        ({"classifier": None}, "no classifier named"),
        ({"instruction": "{text} {text}"}, "once"),
        ({"threshold": 7}, "0 to 1"),
        ({"threshold": "high"}, "0 to 1"),
        ({"model": "gpt"}, "no model named gpt"),
        ({"text": "boats " * 100_000}, "at most 100000"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_on_the_page(runtime: Runtime, changed: dict[str, Any], words: str) -> None:
    page = shown(runtime, **changed)
    assert page.startswith('<p class="error" role="alert">')
    assert words in page
    assert "Traceback" not in page


def test_a_korean_visitor_reads_in_korean_why_it_cannot_be_done(runtime: Runtime) -> None:
    for changed, words in (
        ({"labels": "바다"}, "서로 다른 레이블이 2~200개 있어야 하는데 1개입니다."),
        ({"labels": "바다\n바다"}, "바다이(가) 두 번 있습니다."),
        ({"text": "\n\n", "each_line": True}, "메시지"),
    ):
        page = views(ClassifyUse(runtime), given(**changed), "ko")[-1]
        said = re.fullmatch(r'<p class="error" role="alert">(.*)</p>', page)
        assert said is not None
        assert words in said[1]
        assert not re.search("[A-Za-z]", said[1])


def test_the_words_that_moved_the_decision_are_marked_and_the_method_is_said(runtime: Runtime) -> None:
    made = views(ClassifyUse(runtime), given(text="boats <in> the harbour", explain=True))
    page = made[-1]
    assert messages()("classify.left_out_one") in page
    shown_text = re.search(r'<p class="explained">(.*?)</p>', page, re.DOTALL)
    assert shown_text is not None
    assert re.sub(r"</?mark.*?>", "", shown_text[1]) == "boats &lt;in&gt; the harbour"
    assert re.search(r'<mark class="(for|against)-3" title="[+-]', shown_text[1])
    assert any("bar-value" in view and "explained" not in view for view in made), "the verdict waits for nothing"


def test_no_word_is_marked_in_many_texts_or_where_that_is_off(runtime: Runtime) -> None:
    assert "explained" not in shown(runtime, text="a\nb", each_line=True, explain=True)
    assert "explained" not in shown(runtime)


def test_the_strongest_words_for_and_against_stand_out_most() -> None:
    def part(start: int, end: int, effect: float) -> Part:
        return Part(start, end, {"up": 0.5, "down": 0.5}, {"up": effect, "down": -effect})

    verdict = Verdict("up", {"up": 0.9, "down": 0.1})
    parts = (part(0, 4, 2.0), part(5, 8, -1.1), part(9, 12, 0.1))
    found = Explanation("", "m", "{text}", "single_label_classification", "good but old", verdict, parts, 1)
    page = explanation(found, messages())
    assert (
        '<mark class="for-3" title="+2.00">good</mark> <mark class="against-2" title="-1.10">but</mark> old</p>' in page
    )


def test_a_stopped_request_says_so(runtime: Runtime) -> None:
    use = ClassifyUse(runtime)

    async def read() -> list[str]:
        made = []
        async for view in use.classify(ASKED, given(text="\n".join(["boats"] * 500), each_line=True), OWNER):
            made.append(view)
            use.stoppers.stop("one")
        return made

    assert messages()("classify.stopped") in asyncio.run(read())[-1]


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_worked_examples_can_be_classified(runtime: Runtime, name: str, language: str) -> None:
    classifier, labels, text, each_line, instruction = ClassifyUse(runtime).example(name, language)
    page = shown(runtime, labels=labels, instruction=instruction, text=text, each_line=each_line)
    assert classifier == LABELS
    assert 'class="error"' not in page


def test_labels_may_stand_on_one_line_or_have_descriptions() -> None:
    assert [label.name for label in read_labels("good, bad ,so so")] == ["good", "bad", "so so"]
    described = read_labels("urgent: today, or sooner\n\n10:30\n")
    assert [(label.name, label.description) for label in described] == [("urgent", "today, or sooner"), ("10:30", "")]


def test_one_text_keeps_its_lines() -> None:
    assert read_texts("a\nb", each_line=False) == ["a\nb"]
    assert read_texts("a\n\n b ", each_line=True) == ["a", "b"]


def test_nothing_that_a_person_wrote_becomes_markup() -> None:
    assert (
        escaped('<a href="x">${1}{{y}}`')
        == "&lt;a href=&quot;x&quot;&gt;&#36;&#123;1&#125;&#123;&#123;y&#125;&#125;&#96;"
    )
    verdict = Verdict("<i>", {"<i>": 0.9, "b": 0.1})
    page = results(
        Verdicts("<u>", "m", "{text}", "single_label_classification", (verdict,)), ["x"], "<s>", 0.0, messages()
    )
    assert not re.search(r"<[ius]>", page)
