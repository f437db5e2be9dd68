"""How good and how quick classification is: `python -m benchmarks.classification FOLDER`.

FOLDER has tab-separated files of id, mean rating and text (`tweets.tsv`, `amazon.tsv`), as published with VADER (Hutto
and Gilbert 2014). Ratings above 0.5 are positive, below -0.5 negative, the rest is left out; both classes are made
equally large; half is for training, and nothing is chosen on the other half. With `--plain` the test half is read by
plain transformers in float32 from the exported folder, as whoever takes a head away will.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_demo.classify import training
from llama_demo.classify.export import export
from llama_demo.classify.head import Backbone, Head
from llama_demo.classify.labels import labels_from
from llama_demo.classify.reading import by_labels
from llama_demo.classify.report import calibration_bins, calibration_error
from llama_demo.classify.wrapping import Wrapping
from llama_demo.classify.zero_shot import PROMPTS, ZeroShot, choose_prompt
from llama_demo.licences import Licence
from llama_demo.loading import LoadedModel
from llama_demo.runtime import Runtime
from llama_demo.settings import read_settings

LABELS = ("negative", "positive")
SIZES = (50, 200, 1_000_000)
EDGE = 0.5
BATCH = 32


@dataclass
class Results:
    """Figures of all splits by what was done, each (accuracy, calibration error)."""

    figures: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, shares: NDArray[Any], truth: NDArray[Any]) -> None:
        right = shares.argmax(axis=1) == truth
        error = calibration_error(calibration_bins(shares.max(axis=1), right))
        self.figures.setdefault(name, []).append((float(right.mean()), error))

    def lines(self) -> Iterator[str]:
        for name, rows in self.figures.items():
            accuracy, error = np.mean(rows, axis=0)
            spread = np.std(rows, axis=0)[0]
            yield f"  {name:<40} accuracy {accuracy:.3f} ± {spread:.3f}   calibration error {error:.3f}"


def read(path: Path) -> tuple[list[str], NDArray[np.intp]]:
    """Balanced texts and their classes, in the file's order."""
    texts, classes = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        _, rating, text = line.split("\t", 2) if line.count("\t") >= 2 else ("", "0", "")
        if abs(float(rating)) > EDGE and text.strip():
            texts.append(html.unescape(text.strip()))
            classes.append(int(float(rating) > 0))
    truth = np.array(classes)
    each = int(np.bincount(truth).min())
    drawn = np.random.default_rng(0)
    kept = np.sort(np.concatenate([drawn.permutation(np.flatnonzero(truth == place))[:each] for place in (0, 1)]))
    return [texts[place] for place in kept], truth[kept]


def go_on(_: int, __: int) -> bool:
    return True


def features(loaded: LoadedModel, wrapping: Wrapping, texts: Sequence[str]) -> NDArray[np.float32]:
    read_ids = [wrapping.read(loaded.tokenizer, text, loaded.engine.context_tokens).ids for text in texts]
    return loaded.engine.embed(read_ids)


def plain_features(runtime: Runtime, head: Head, texts: Sequence[str]) -> NDArray[np.float32]:
    """What the exported folder's backbone makes of the wrapped texts in plain transformers, float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "exported")
        _export(runtime, head, target)
        tokenizer = AutoTokenizer.from_pretrained(str(target), padding_side="right")
        model = AutoModelForSequenceClassification.from_pretrained(str(target), dtype=torch.float32).eval()
    made = np.empty((len(texts), head.hidden_size), np.float32)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        wrapped = [head.prompt.replace("{text}", texts[place]) for place in places]
        batch = tokenizer(wrapped, return_tensors="pt", padding=True, split_special_tokens=True)
        lasts = batch["attention_mask"].sum(1) - 1
        with torch.no_grad():
            hidden = model.model(**batch).last_hidden_state
        made[places] = hidden[torch.arange(len(places)), lasts].numpy()
    return made


def _export(runtime: Runtime, head: Head, target: Path) -> None:
    backbone = runtime._loader.checkpoint(head.backbone.name, lambda _: None)
    export(head, backbone, target, Licence("", ""), runtime.messages())


def word_shares(texts: Sequence[str], classes: NDArray[np.intp], others: Sequence[str]) -> NDArray[np.float64]:
    """The usual baseline: a logistic regression on TF-IDF of words and pairs of words, its penalty cross-validated."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = words.fit_transform(texts)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0, 10.0, 100.0]}, cv=5)
    search.fit(known, classes)
    shares: NDArray[np.float64] = search.predict_proba(words.transform(others))
    return shares


def accuracy(runtime: Runtime, loaded: LoadedModel, path: Path, splits: int, plain: bool) -> Results:
    texts, truth = read(path)
    wrapping = choose_prompt(loaded, [Wrapping(prompt) for prompt in PROMPTS], LABELS)
    print(f"{path.name}: {len(texts)} texts inside {wrapping.prompt!r}", flush=True)
    seen = features(loaded, wrapping, texts)
    judged = seen
    if plain:
        zeros = np.zeros((2, seen.shape[1]), np.float32)
        judged = plain_features(runtime, Head("x", LABELS, zeros, wrapping.prompt, Backbone(loaded.entry.name)), texts)
    found = by_labels(loaded, ZeroShot(labels_from(LABELS)), {}).read(texts, go_on)
    assert found is not None
    zero_shot, _ = found
    results = Results()
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(texts))
        half, test = order[: len(order) // 2], order[len(order) // 2 :]
        tested = [texts[place] for place in test]
        results.add("majority", np.eye(2)[np.full(len(test), np.bincount(truth[half]).argmax())], truth[test])
        results.add("zero-shot", zero_shot[test], truth[test])
        for size in SIZES:
            used = half[:size]
            fitted = training.train(seen[used], truth[used], go_on)
            assert fitted is not None
            shares = training.softmax(judged[test].astype(np.float64) @ fitted.weight.T)
            name = f"{min(size, len(half))} examples"
            results.add(f"head, {name}", shares, truth[test])
            results.add(
                f"TF-IDF, {name}", word_shares([texts[place] for place in used], truth[used], tested), truth[test]
            )
    return results


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def last(updates: AsyncGenerator[Any, None]) -> Any:
    async def run() -> Any:
        async with aclosing(updates):
            return [update async for update in updates][-1]

    return asyncio.run(run())


def speed(runtime: Runtime, loaded: LoadedModel, path: Path) -> None:
    """Throughput beside transformers' own pipeline, what more labels cost, and how long training takes."""
    texts, truth = read(path)
    texts = (texts * (2000 // len(texts) + 1))[:2000]
    wrapping = Wrapping(PROMPTS[1])
    ours = timed(lambda: features(loaded, wrapping, texts))
    print(f"  {len(texts)} sentences: {len(texts) / ours:.1f} a second", flush=True)
    theirs = _pipeline_seconds(runtime, loaded, wrapping, texts[:512]) * len(texts) / 512
    print(
        f"  transformers' pipeline, batches of {BATCH}: {len(texts) / theirs:.1f} a second: ratio {theirs / ours:.2f}"
    )
    for kind, names in (("one token", _SHORT), ("several tokens", _LONG)):
        few, many = (_zero_shot_seconds(loaded, names[:count], texts[:100]) for count in (2, 20))
        print(f"  zero-shot, labels of {kind}: 20 labels cost {many / few:.2f} times 2 labels", flush=True)
    examples = [{"text": text, "label": LABELS[int(place)]} for text, place in zip(texts, truth, strict=False)][:1000]
    runtime.classification._features._kept.clear()
    seconds = timed(lambda: last(runtime.classification.train(examples, "benchmark", model=loaded.entry.name)))
    print(f"  training on {len(examples)} examples: {seconds:.1f} s", flush=True)


_SHORT = ["sports", "politics", "business", "science", "music", "travel", "food", "health", "history", "art"]
_SHORT += ["law", "war", "love", "weather", "money", "school", "work", "family", "nature", "religion"]
_LONG = [f"{name} and everything about it" for name in _SHORT]


def _zero_shot_seconds(loaded: LoadedModel, names: Sequence[str], texts: Sequence[str]) -> float:
    asked = ZeroShot(labels_from(list(names)), PROMPTS[0])
    return timed(lambda: by_labels(loaded, asked, {}).read(texts, go_on))


def _pipeline_seconds(runtime: Runtime, loaded: LoadedModel, wrapping: Wrapping, texts: Sequence[str]) -> float:
    from transformers import pipeline

    width = loaded.engine.embed([[1]]).shape[1]
    head = Head("x", LABELS, np.zeros((2, width), np.float32), wrapping.prompt, Backbone(loaded.entry.name))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "exported")
        _export(runtime, head, target)
        classify = pipeline("text-classification", model=str(target), batch_size=BATCH, device="cpu")
    wrapped = [wrapping.wrap(text) for text in texts]
    return timed(lambda: classify(wrapped))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--plain", action="store_true", help="read the test half by plain transformers in float32")
    parser.add_argument("--no-speed", action="store_true")
    parsed = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as cache,
        Runtime(read_settings({"cache_dir": cache}, {})) as runtime,
        runtime.registry.lease(runtime.reads_with(runtime.default_model)) as loaded,
    ):
        for name in ("tweets.tsv", "amazon.tsv"):
            results = accuracy(runtime, loaded, parsed.folder / name, parsed.splits, parsed.plain)
            print("\n".join(results.lines()), flush=True)
        if not parsed.no_speed:
            speed(runtime, loaded, parsed.folder / "tweets.tsv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
