from __future__ import annotations

import numpy as np
import pytest

from llama_demo.classify import report
from llama_demo.errors import BadLabels


def test_the_figures_are_what_scikit_learn_makes_of_them() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet([1.0] * 4, 300)
    probabilities[np.arange(300), truth] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    made = report.report("abcd", truth, probabilities, [f"text {number}" for number in range(300)])
    said = probabilities.argmax(axis=1)
    assert made.accuracy == pytest.approx(metrics.accuracy_score(truth, said))
    assert made.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert np.array(made.confusion).tolist() == metrics.confusion_matrix(truth, said).tolist()
    assert made.accuracy_interval[0] < made.accuracy < made.accuracy_interval[1]
    assert made.macro_f1_interval[0] < made.macro_f1 < made.macro_f1_interval[1]
    assert made.majority == pytest.approx(np.bincount(truth).max() / 300)
    assert made.counts == tuple(np.bincount(truth).tolist())


def test_wilsons_interval_is_the_textbooks() -> None:
    assert report.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert report.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_calibration_error_weighs_each_bin_by_its_texts() -> None:
    confidence = np.array([0.9] * 10 + [0.6] * 30)
    right = np.array([True] * 8 + [False] * 2 + [True] * 21 + [False] * 9)
    bins = report.calibration_bins(confidence, right)
    assert [(each.count, round(each.accuracy, 2)) for each in bins] == [(30, 0.7), (10, 0.8)]
    assert report.calibration_error(bins) == pytest.approx(0.25 * 0.1 + 0.75 * 0.1)
    assert report.calibration_bins(np.array([1.0]), np.array([True]))[0].high == 1.0


def test_the_most_confident_mistakes_come_first_and_only_mistakes() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.01, 0.99]])
    made = report.report("ab", np.array([1, 1, 0, 1]), probabilities, ["one", "two", "three", "four"])
    assert [(mistake.text, mistake.label, mistake.predicted) for mistake in made.wrong] == [
        ("one", "b", "a"),
        ("two", "b", "a"),
        ("three", "a", "b"),
    ]
    assert "text" not in str(made.figures())
    assert made.public()["most_confidently_wrong"][0]["probability"] == 0.9


def test_texts_judged_some_at_a_time_give_the_report_of_all_at_once() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet([1.0] * 3, 200)
    texts = [f"text {number}" for number in range(200)]
    tally = report.Tally("abc")
    for start in range(0, 200, 30):
        some = slice(start, start + 30)
        scores = [dict(zip("abc", row, strict=True)) for row in probabilities[some].tolist()]
        tally.add(texts[some], ["abc"[place] for place in truth[some]], scores)
    assert tally.report() == report.report("abc", truth, probabilities, texts)


def test_a_text_whose_label_the_classifier_does_not_have_is_left_out_and_said() -> None:
    sure = {"a": 0.9, "b": 0.1}
    tally = report.Tally("ab")
    tally.add(["one", "two", "three", "four"], ["a", "c", "", "b"], [sure] * 4)
    made = tally.report()
    assert (made.accuracy, made.counts, made.left_out, made.unknown_labels) == (0.5, (1, 1), 2, ("c",))
    assert made.public()["left_out"] == 2
    assert "left_out" not in made.figures()


def test_there_is_no_report_without_a_label_in_common_nor_of_other_kinds() -> None:
    tally = report.Tally("ab")
    tally.add([str(number) for number in range(50)], [f"label {number}" for number in range(50)], [{}] * 50)
    with pytest.raises(BadLabels, match=r"labels\.others, there='label 0, .*labels='a, b'") as raised:
        tally.report()
    assert "label 49" not in str(raised.value)
    for kind in ("multi_label_classification", "regression"):
        with pytest.raises(BadLabels, match="no_report"):
            report.Tally("ab", kind)
