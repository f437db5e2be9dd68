from __future__ import annotations

import numpy as np
import pytest

from llama_demo.classify import report, training
from llama_demo.classify.training import train


def clouds(count: int, labels: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features far from zero and of unequal scales, as a model's are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(labels, 32))
    classes = np.arange(count) % labels
    features = centres[classes] + noise * rng.normal(size=(count, 32))
    scales = np.random.default_rng(98).uniform(0.1, 30, 32)
    return (features * scales + 2 * scales).astype(np.float32), classes.astype(np.intp)


def go_on(_: int, __: int) -> bool:
    return True


@pytest.mark.parametrize("labels", [2, 5])
def test_what_it_learned_holds_on_examples_it_never_saw_and_the_report_foretells_it(labels: int) -> None:
    fitted = train(*clouds(300, labels, 2.0), go_on)
    assert fitted is not None
    features, classes = clouds(2000, labels, 2.0, seed=1)
    probabilities = training.softmax(features.astype(np.float64) @ fitted.weight.T)
    accuracy = (probabilities.argmax(axis=1) == classes).mean()
    foretold = report.report("abcde"[:labels], clouds(300, labels, 2.0)[1], fitted.probabilities, [""] * 300)
    assert accuracy > 0.75
    assert abs(accuracy - foretold.accuracy) < 0.08
    seen = report.calibration_bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == classes)
    assert report.calibration_error(seen) < 0.08


@pytest.mark.parametrize(("labels", "each"), [(2, (190, 10)), (3, (80, 12, 8)), (10, (60, 20, *(5,) * 8))])
def test_rare_labels_are_learned_beside_common_ones(labels: int, each: tuple[int, ...]) -> None:
    features, classes = clouds(200 * labels, labels, 1.0)
    kept = np.concatenate([np.flatnonzero(classes == place)[:count] for place, count in enumerate(each)])
    fitted = train(features[kept], classes[kept], go_on)
    assert fitted is not None
    assert min(training.PENALTIES) < fitted.penalty <= max(training.PENALTIES)
    fresh, truth = clouds(400, labels, 1.0, seed=1)
    said = (fresh.astype(np.float64) @ fitted.weight.T).argmax(axis=1)
    assert report.macro_f1(report.confusion_matrix(truth, said, labels)) > 0.85


def test_labels_that_mean_nothing_are_reported_as_chance() -> None:
    """So the penalty is chosen within the folds that are judged, and no example judges itself."""
    rng = np.random.default_rng(0)
    classes = (np.arange(200) % 2).astype(np.intp)
    fitted = train(rng.normal(size=(200, 64)).astype(np.float32), classes, go_on)
    assert fitted is not None
    right = fitted.probabilities.argmax(axis=1) == classes
    assert 0.35 < right.mean() < 0.65
    assert report.calibration_error(report.calibration_bins(fitted.probabilities.max(axis=1), right)) < 0.15


def test_copies_of_a_text_never_judge_each_other() -> None:
    rng = np.random.default_rng(0)
    features = np.tile(rng.normal(size=(60, 200)).astype(np.float32), (3, 1))
    classes = np.tile((np.arange(60) % 2).astype(np.intp), 3)
    fitted = train(features, classes, go_on)
    assert fitted is not None
    assert fitted.judged.tolist() == list(range(180))
    assert 0.3 < (fitted.probabilities.argmax(axis=1) == classes).mean() < 0.7
    for fit_on, held in training._folds(classes, training._same(features, classes), 5, seed=1):
        assert len(held) == 36
        assert classes[held].sum() == 18
        assert not set(fit_on % 60) & set(held % 60)


def test_copies_of_a_labels_only_text_are_dealt_out() -> None:
    features, classes = clouds(60, 2, 0.1)
    features[classes == 1] = features[1]
    fitted = train(features, classes, go_on)
    assert fitted is not None
    assert (fitted.probabilities.argmax(axis=1) == classes).all()
    for fit_on, held in training._folds(classes, training._same(features, classes), 5, seed=1):
        assert classes[fit_on].sum() == 24
        assert classes[held].sum() == 6


@pytest.mark.filterwarnings("error")
def test_a_text_with_two_labels_is_held_out_with_both() -> None:
    features, classes = clouds(2, 2, 0.1)[0][np.arange(16) % 2], (np.arange(16) // 2 % 2).astype(np.intp)
    fitted = train(features, classes, go_on)
    assert fitted is not None
    assert fitted.probabilities == pytest.approx(0.5)


def test_the_temperature_mends_an_overconfident_fit() -> None:
    logits = 5.0 * np.stack([np.zeros(400), np.random.default_rng(0).normal(1, 2, 400)], axis=1)
    classes = (np.random.default_rng(1).random(400) < 1 / (1 + np.exp(-logits[:, 1] / 5))).astype(np.intp)
    found, _ = training._temperature(logits, classes)
    assert found == pytest.approx(0.2, rel=0.35)


def test_every_example_is_judged_once_where_they_are_few_and_a_fifth_where_they_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, classes = clouds(100, 2, 1.0)
    few = train(features, classes, go_on)
    assert few is not None
    assert few.judged.tolist() == list(range(100))
    monkeypatch.setattr(training, "LARGE", 50)
    many = train(features, classes, go_on)
    assert many is not None
    assert len(many.judged) == 20


def test_a_fold_without_a_label_does_not_end_the_training() -> None:
    fitted = train(*clouds(12, 6, 0.1), go_on)
    assert fitted is not None
    assert fitted.weight.shape == (6, 32)
    assert np.isfinite(fitted.weight).all()
    assert np.isfinite(fitted.probabilities).all()


def test_a_cancel_is_heard_between_two_fits() -> None:
    told: list[int] = []

    def stop(done: int, _: int) -> bool:
        told.append(done)
        return done < 2

    assert train(*clouds(60, 2, 1.0), stop) is None
    assert told == [0, 1, 2]


def test_features_that_are_no_numbers_are_refused() -> None:
    features, classes = clouds(20, 2, 1.0)
    features[3, 3] = np.nan
    with pytest.raises(ValueError, match="no number"):
        train(features, classes, go_on)
