"""How good a classifier is, drawn in HTML: figures with intervals, a confusion matrix, a calibration plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_demo.messages import Messages, shortened
from llama_demo.ui.classify_html import escaped, note, percent, table

MOST_DRAWN = 30
"""Labels of a confusion matrix that is drawn; of more the commonest confusions are listed."""
MOST_CONFUSIONS = 20
_TEXT_CHARACTERS = 200
_PLOT, _EDGE = 220, 34
"""The calibration plot's inside, and the room for its numbers."""


def report_html(figures: Mapping[str, Any], wrong: Sequence[Mapping[str, Any]], words: Messages) -> str:
    """`figures` as `Report.figures` has them, `wrong` the mistakes as `Report.public` has them.

    Raises `KeyError`, `TypeError`, `ValueError` for figures that are none, as a file from elsewhere may hold.
    """
    labels = [str(label) for label in figures["labels"]]
    parts = [_figures(figures, words), _heading(words("classify.confusion"), words("classify.confusion_help"))]
    drawn = _matrix if len(labels) <= MOST_DRAWN else _confusions
    parts.append(drawn(labels, [[int(cell) for cell in row] for row in figures["confusion"]], words))
    parts.append(_heading(words("classify.calibration"), words("classify.calibration_help")))
    parts.append(_calibration(figures["calibration"], words))
    if wrong:
        parts.append(_heading(words("classify.wrong"), words("classify.wrong_help")))
        head = [words(f"classify.column_{name}") for name in ("text", "label", "predicted", "share")]
        rows = [
            (shortened(one["text"], _TEXT_CHARACTERS), one["label"], one["predicted"], percent(one["probability"]))
            for one in wrong
        ]
        parts.append(table(head, rows))
    return "".join(parts)


def _heading(title: str, explained: str) -> str:
    return f"<h4>{escaped(title)}</h4>{note(explained)}"


def _figures(figures: Mapping[str, Any], words: Messages) -> str:
    def interval(name: str) -> str:
        low, high = figures[f"{name}_interval"]
        return words("classify.interval", low=percent(low), high=percent(high))

    cells = [
        (words("classify.accuracy"), percent(figures["accuracy"]), interval("accuracy")),
        (words("classify.macro_f1"), percent(figures["macro_f1"]), interval("macro_f1")),
        (words("classify.majority"), percent(figures["majority"]), words("classify.majority_help")),
        (words("classify.calibration_error"), percent(figures["calibration_error"]), words("classify.ece_help")),
    ]
    shown = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}<small>{escaped(more)}</small></dd></div>"
        for name, value, more in cells
    )
    return f'<dl class="figures">{shown}</dl>'


def _matrix(labels: Sequence[str], rows: Sequence[Sequence[int]], words: Messages) -> str:
    """Rows are what a text is, columns what it was called; a cell is as dark as its share of the row."""
    head = "".join(f'<th scope="col">{escaped(label)}</th>' for label in labels)
    lines = []
    for place, (label, row) in enumerate(zip(labels, rows, strict=True)):
        total = sum(row) or 1
        cells = "".join(
            f'<td class="{"right" if other == place else "wrong"}{" full" if count / total > 0.5 else ""}" '
            f'style="--share:{count / total * 100:.0f}%">{count}</td>'
            for other, count in enumerate(row)
        )
        lines.append(f'<tr><th scope="row">{escaped(label)}</th>{cells}</tr>')
    corner = escaped(words("classify.confusion_corner"))
    return (
        f'<div class="wide" tabindex="0"><table class="confusion"><thead><tr><th>{corner}</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _confusions(labels: Sequence[str], rows: Sequence[Sequence[int]], words: Messages) -> str:
    found = [
        (count, labels[place], labels[other])
        for place, row in enumerate(rows)
        for other, count in enumerate(row)
        if count and place != other
    ]
    found.sort(key=lambda one: -one[0])
    head = [words(f"classify.column_{name}") for name in ("label", "predicted", "count")]
    return table(head, [(label, called, str(count)) for count, label, called in found[:MOST_CONFUSIONS]])


def _calibration(bins: Sequence[Mapping[str, Any]], words: Messages) -> str:
    """A bar for each bin of probabilities: how often those texts were right. On the diagonal it is as it should be."""
    drawn = []
    for each in bins:
        low, high, right, said = (float(each[name]) for name in ("low", "high", "accuracy", "confidence"))
        shares = {"low": low, "high": high, "right": right, "said": said}
        title = words(
            "classify.calibration_bin",
            count=int(each["count"]),
            **{name: percent(share) for name, share in shares.items()},
        )
        top = f"{(1 - right) * _PLOT + 6:.1f}"
        drawn.append(
            f'<rect x="{_EDGE + low * _PLOT:.1f}" y="{top}" width="{(high - low) * _PLOT - 1:.1f}" '
            f'height="{right * _PLOT:.1f}"><title>{escaped(title)}</title></rect>'
            f'<circle cx="{_EDGE + said * _PLOT:.1f}" cy="{top}" r="3.5"/>'
        )
    ticks = "".join(
        f'<text x="{_EDGE - 6}" y="{(1 - share) * _PLOT + 10:.0f}" text-anchor="end">{share:.1f}</text>'
        f'<text x="{_EDGE + share * _PLOT:.0f}" y="{_PLOT + 22}" text-anchor="middle">{share:.1f}</text>'
        for share in (0.0, 0.5, 1.0)
    )
    size = f"0 0 {_PLOT + _EDGE + 12} {_PLOT + _EDGE + 12}"
    below = escaped(words("classify.said"))
    return (
        f'<svg class="calibration" viewBox="{size}" role="img" aria-label="{escaped(words("classify.calibration"))}">'
        f'<path class="frame" d="M{_EDGE} 6V{_PLOT + 6}H{_PLOT + _EDGE}"/>{"".join(drawn)}'
        f'<path class="diagonal" d="M{_EDGE} {_PLOT + 6}L{_PLOT + _EDGE} 6"/>{ticks}'
        f'<text x="{_EDGE + _PLOT / 2:.0f}" y="{_PLOT + 40}" text-anchor="middle">{below}</text>'
        "</svg>"
    )
