"""Fits a head on frozen features: a logistic regression whose penalty and temperature are chosen by cross-validation.

The head must be what `LlamaForSequenceClassification` can hold, a matrix without intercept: so features are divided by
their standard deviation and not centred, and the division and the temperature are folded into the matrix. The report
comes from folds that had no part in fitting, nor in choosing. It knows no model and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

PENALTIES = tuple(float(each) for each in 10.0 ** np.arange(-4.0, 1.1, 0.5))
"""scikit-learn's `C`, from the strongest penalty on; the path ends where two in a row have made it worse."""
FOLDS = 5
INNER_FOLDS = 4
LARGE = 8_000
"""With more examples one fold in five is held out once, within and without: enough to judge by, and to wait for."""
MOST_ITERATIONS = 300
_TEMPERATURES = np.exp(np.linspace(-3.0, 3.0, 121))

GoOn = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class Fitted:
    """`weight` float64 [labels, hidden], for plain features; `penalty` is scikit-learn's `C`; `judged` are the places
    of the examples that were held out, and `probabilities` what was said of each of them then."""

    weight: Floats
    penalty: float
    judged: Places
    probabilities: Floats


def train(features: NDArray[np.float32], classes: Places, told: GoOn) -> Fitted | None:
    """`features` [n, hidden], `classes` [n] from 0 with two or more of each. None where `told` ended it; it is told
    how many of how many steps are done. Raises `ValueError` for features that are no numbers."""
    if not np.isfinite(features).all():
        raise ValueError("features hold what is no number")
    count = int(classes.max()) + 1
    matrix: NDArray[Any] = features.astype(np.float64 if len(features) <= LARGE else np.float32)
    same = _same(features, classes)
    folds = list(_folds(classes, same, FOLDS, seed=1))
    probabilities = np.zeros((len(classes), count))
    judged = []
    for done, (fit_on, held) in enumerate(folds):
        if not told(done, len(folds) + 1):
            return None
        weight, _ = _fit(matrix[fit_on], classes[fit_on], same[fit_on], count)
        probabilities[held] = softmax(matrix[held] @ weight.T)
        judged.append(held)
    if not told(len(folds), len(folds) + 1):
        return None
    weight, penalty = _fit(matrix, classes, same, count)
    told(len(folds) + 1, len(folds) + 1)
    places = np.sort(np.concatenate(judged))
    return Fitted(weight, penalty, places, probabilities[places])


def softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _same(features: NDArray[np.float32], classes: Places) -> Places:
    """A number for each example, the same for copies of one text, which are the same to the last bit. Copies of a
    label's only text get different ones: held out together, they would leave nothing of the label to fit on."""
    first: dict[int, int] = {}
    same = np.array([first.setdefault(hash(row.tobytes()), place) for place, row in enumerate(features)], np.intp)
    for label in np.unique(classes):
        places = np.flatnonzero(classes == label)
        if (same[places] == same[places[0]]).all():
            same[places] = places
    return same


def _folds(classes: Places, same: Places, count: int, seed: int) -> Iterator[tuple[Places, Places]]:
    """Which examples are fitted on and which held out, each label dealt out evenly, the `same` ones together."""
    _, first, copied = np.unique(same, return_index=True, return_inverse=True)
    dealt = np.empty(len(first), dtype=np.intp)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(classes[first[shuffled]], kind="stable")]
    dealt[order] = np.arange(len(first)) % count
    for fold in range(1 if len(classes) > LARGE else count):
        yield np.flatnonzero(dealt[copied] != fold), np.flatnonzero(dealt[copied] == fold)


def _fit(matrix: Floats, classes: Places, same: Places, count: int) -> tuple[Floats, float]:
    """The head of the penalty and the temperature that served best on examples held out, fitted on all."""
    folds = list(_folds(classes, same, INNER_FOLDS, seed=2))
    paths = [_path(matrix[fit_on], classes[fit_on], count) for fit_on, _ in folds]
    held = np.concatenate([places for _, places in folds])
    best, penalty, heat, worse = np.inf, PENALTIES[0], 1.0, 0
    for tried in PENALTIES:
        logits = np.concatenate(
            [matrix[places] @ path(tried).T for path, (_, places) in zip(paths, folds, strict=True)]
        )
        found, loss = _temperature(logits, classes[held])
        if loss < best:
            best, penalty, heat, worse = loss, tried, found, 0
        else:
            worse += 1
        if worse == 2:
            break
    return _path(matrix, classes, count)(penalty) * heat, penalty


def _path(matrix: Floats, classes: Places, count: int) -> Callable[[float], Floats]:
    """Fits with one penalty after another, each from where the last one ended; there is nothing to fit with less than
    two labels."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(classes)
    if len(present) < 2:
        return lambda _: np.zeros((count, matrix.shape[1]))
    scale = matrix.std(axis=0)
    scale[scale < 1e-6] = 1.0
    scaled = matrix / scale
    model = LogisticRegression(fit_intercept=False, max_iter=MOST_ITERATIONS, tol=1e-3, warm_start=True)

    def fit(penalty: float) -> Floats:
        model.set_params(C=penalty)
        _quietly(lambda: model.fit(scaled, classes))
        rows = model.coef_ / scale
        weight = np.zeros((count, matrix.shape[1]))
        weight[present] = rows if len(rows) > 1 else np.stack([-rows[0] / 2, rows[0] / 2])
        return weight

    return fit


def _quietly(work: Callable[[], object]) -> None:
    """A fit that is not quite at its end after `MOST_ITERATIONS` is judged like any other; and two threads on the few
    numbers of one step wait for each other more than they compute."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        work()


def _temperature(logits: Floats, classes: Places) -> tuple[float, float]:
    """What to multiply the logits by so that held-out labels are likeliest, and their mean surprise then."""
    losses = [_loss(logits * each, classes) for each in _TEMPERATURES]
    place = int(np.argmin(losses))
    return float(_TEMPERATURES[place]), losses[place]


def _loss(logits: Floats, classes: Places) -> float:
    own = logits[np.arange(len(classes)), classes]
    highest = logits.max(axis=1)
    return float((highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)) - own).mean())
