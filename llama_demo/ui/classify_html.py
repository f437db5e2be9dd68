"""What classification found, as HTML in the visitor's words. Whatever a person wrote is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from llama_demo.classify.results import Explanation, Verdict, Verdicts
from llama_demo.messages import Messages, shortened

MOST_ROWS = 500
"""Of a table on the page."""
STRENGTHS = 3
"""How strongly words are marked: by thirds of the strongest effect in the text."""
_ROW_CHARACTERS = 160
_TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})


def escaped(text: str) -> str:
    """`text` as HTML, which Gradio cannot take for one of its templates either."""
    return html.escape(text).translate(_TEMPLATE)


def note(text: str) -> str:
    return f'<p class="note" role="status">{escaped(text)}</p>'


def meter(done: int, total: int) -> str:
    """A bar of what is done; nothing where the whole is not known yet."""
    return f'<progress max="{total}" value="{done}"></progress>' if total else ""


def failure(text: str) -> str:
    return f'<p class="error" role="alert">{escaped(text)}</p>'


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def results(found: Verdicts, texts: Sequence[str], title: str, threshold: float, words: Messages) -> str:
    """One text's verdict with a bar for every label, or a table of many."""
    made_by = words(
        "classify.by_head" if found.classifier else "classify.by_labels", name=found.classifier, model=title
    )
    if len(texts) == 1:
        shown = _one(found.verdicts[0], found.problem_type, threshold, words)
    else:
        shown = _table(found, texts, threshold, words)
    return f'{shown}<p class="note">{escaped(made_by)}</p>'


def explanation(found: Explanation, words: Messages) -> str:
    """The text with the words marked that moved the decision; how that was found is said below it."""
    scores = found.verdict.scores
    decided = max(scores, key=lambda name: scores[name])
    strongest = max((abs(part.effects[decided]) for part in found.parts), default=0.0)
    if not strongest:
        return note(words("classify.one_word"))
    marked, end = [], 0
    for part in found.parts:
        effect = part.effects[decided]
        strength = min(STRENGTHS, int(abs(effect) / strongest * (STRENGTHS + 1)))
        inside = escaped(found.text[part.start : part.end])
        kind = "for" if effect > 0 else "against"
        if strength:
            inside = f'<mark class="{kind}-{strength}" title="{effect:+.2f}">{inside}</mark>'
        marked.append(escaped(found.text[end : part.start]) + inside)
        end = part.end
    marked.append(escaped(found.text[end:]))
    key = "classify.left_out_one" if found.words_each == 1 else "classify.left_out_many"
    legend = "".join(
        f'<mark class="{kind}-2">{escaped(words(f"classify.speaks_{kind}", label=decided))}</mark> '
        for kind in ("for", "against")
    )
    how = note(words(key, count=found.words_each))
    return f'<p class="explained">{"".join(marked)}</p><p class="legend">{legend}</p>{how}'


def bars(shares: Sequence[tuple[str, float, str]], marked: str | None = None) -> str:
    """A labelled bar for each (name, share of the width, words beside it); the one called `marked` stands out."""
    rows = "".join(
        f'<li{" class=marked" if name == marked else ""}><span class="bar-name">{escaped(name)}</span>'
        f'<span class="bar"><span style="width:{share * 100:.2f}%"></span></span>'
        f'<span class="bar-value">{escaped(value)}</span></li>'
        for name, share, value in shares
    )
    return f'<ul class="bars">{rows}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are texts."""
    columns = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _one(verdict: Verdict, problem_type: str, threshold: float, words: Messages) -> str:
    highest = max(verdict.scores.values())
    if problem_type == "regression":
        largest = max(map(abs, verdict.scores.values())) or 1.0
        shares = [(name, abs(value) / largest, f"{value:.4g}") for name, value in verdict.scores.items()]
    else:
        ordered = sorted(verdict.scores.items(), key=lambda pair: -pair[1])
        shares = [(name, value, percent(value)) for name, value in ordered]
    marked = verdict.label or (None if problem_type == "regression" else shares[0][0])
    decision = _decision(verdict, problem_type, threshold, words)
    kind = "decision" if verdict.label or verdict.labels or problem_type == "regression" else "decision abstained"
    cut = note(words("classify.cut", count=verdict.cut_characters)) if verdict.cut_characters else ""
    if verdict.label:
        decision = f"{decision} · {percent(highest)}"
    return f'<p class="{kind}">{escaped(decision)}</p>{cut}{bars(shares, marked if verdict.label else None)}'


def _decision(verdict: Verdict, problem_type: str, threshold: float, words: Messages) -> str:
    """In a few words: the label, several of them, a value, or why there is none."""
    best = max(verdict.scores, key=lambda name: verdict.scores[name])
    if problem_type == "regression":
        return ", ".join(f"{name}: {value:.4g}" for name, value in verdict.scores.items())
    if problem_type == "multi_label_classification":
        return ", ".join(verdict.labels) or words("classify.no_label", best=best, share=percent(verdict.scores[best]))
    if verdict.label is None:
        share = percent(verdict.scores[best])
        return words("classify.abstained", threshold=percent(threshold), best=best, share=share)
    return verdict.label


def _table(found: Verdicts, texts: Sequence[str], threshold: float, words: Messages) -> str:
    head = [words(f"classify.column_{name}") for name in ("number", "text", "decision", "share")]
    rows = []
    for number, (text, verdict) in enumerate(zip(texts[:MOST_ROWS], found.verdicts, strict=False), 1):
        cut = f" ({words('classify.cut', count=verdict.cut_characters)})" if verdict.cut_characters else ""
        share = "" if found.problem_type == "regression" else percent(max(verdict.scores.values()))
        decision = _decision(verdict, found.problem_type, threshold, words)
        rows.append((str(number), shortened(text, _ROW_CHARACTERS) + cut, decision, share))
    more = len(texts) - len(rows)
    left_out = note(words("classify.rows_left_out", shown=len(rows), count=len(texts))) if more else ""
    return table(head, rows) + left_out
