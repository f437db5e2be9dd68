from __future__ import annotations

import numpy as np
import pytest

from llama_demo.classify import report


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
