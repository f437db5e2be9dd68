"""Classification as the page, the API and the command line use it: async, with progress, on leased models.

Closing a generator, or its stopper, ends the work at its next step; neither blocks.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np

from llama_demo.catalog import Entry
from llama_demo.checkpoints.llama import Checkpoint
from llama_demo.classify import head as heads
from llama_demo.classify import training, zero_shot
from llama_demo.classify.attribution import effects, parts_of
from llama_demo.classify.checkpoint import is_classifier, read_checkpoint
from llama_demo.classify.examples import Examples, examples_from
from llama_demo.classify.features import Features, Told
from llama_demo.classify.head import Backbone, Head
from llama_demo.classify.reading import ChosenPrompts, Reader, by_head, by_labels, embed, probe
from llama_demo.classify.report import report
from llama_demo.classify.results import (
    ClassifyUpdate,
    ExplainUpdate,
    Explanation,
    Part,
    Trained,
    TrainUpdate,
    Verdicts,
    Working,
    verdicts,
)
from llama_demo.classify.sharing import Sharing
from llama_demo.classify.store import Heads
from llama_demo.classify.wrapping import Wrapping, texts_from
from llama_demo.classify.zero_shot import PROMPTS, ZeroShot
from llama_demo.errors import (
    BadHead,
    InvalidParameter,
    UnknownClassifier,
    UnknownModel,
    WrongBackbone,
)
from llama_demo.leasing import Done, Leasing, Stopper
from llama_demo.limits import Limits
from llama_demo.loading import LoadedModel
from llama_demo.model_cache import Report
from llama_demo.reasons import Reason
from llama_demo.tokenizer import Tokenizer
from llama_demo.values import LoadProgress, Waiting
from llama_demo.visitors import Visitor

FEATURES_BYTES = 256_000_000

T = TypeVar("T")


class Classification:
    """`reads_with` gives the name under which a model that can score and embed is leased, `checkpoint` the files it is
    read from, `entry_of` its entry; all raise `UnknownModel`. `folder` keeps heads, each visitor's apart where
    it is `private`; `sharing` takes them out."""

    def __init__(
        self,
        leasing: Leasing,
        limits: Limits,
        *,
        reads_with: Callable[[str], str],
        checkpoint: Callable[[str, Report], Checkpoint],
        entry_of: Callable[[str], Entry],
        folder: Path,
        private: bool = False,
    ) -> None:
        self._entry_of = entry_of
        self._leasing = leasing
        self._limits = limits
        self._reads_with = reads_with
        self._features = Features(FEATURES_BYTES)
        self._chosen: ChosenPrompts = {}
        self.heads = Heads(folder, private=private)
        self.sharing = Sharing(find=self.find, home=lambda head: entry_of(self._home(head, "")), checkpoint=checkpoint)

    async def classify(
        self,
        texts: object,
        by: str | ZeroShot,
        *,
        model: str = "",
        abstain_below: float = 0.0,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[ClassifyUpdate, None]:
        """How likely `model` finds each label of each text; or what the trained head of that name says of it, on the
        model that it was trained on unless `model` is another name of it. A checkpoint that classifies goes by its
        model's name. Raises `InvalidInput`, and as `Leasing.call`."""
        how, home = self._decides(by, model, stopper)
        taken = texts_from(texts, self._limits)
        _check_share(abstain_below)

        def work(loaded: LoadedModel, progress: _Progress) -> Verdicts | None:
            reader = self._reader(loaded, how)
            found = reader.read(taken, progress.step("read"))
            if found is None:
                return None
            made = verdicts(reader.labels, reader.problem_type, *found, abstain_below)
            return Verdicts(reader.classifier, reader.model, reader.prompt, reader.problem_type, made)

        async with aclosing(self._run(home, work, stopper)) as updates:
            async for update in updates:
                yield update

    async def explain(
        self,
        text: str,
        by: str | ZeroShot,
        *,
        model: str = "",
        abstain_below: float = 0.0,
        stopper: Stopper | None = None,
    ) -> AsyncGenerator[ExplainUpdate, None]:
        """Which words moved the decision on one text; the rest as `classify`."""
        how, home = self._decides(by, model, stopper)
        (whole,) = texts_from([text], self._limits)
        _check_share(abstain_below)

        def work(loaded: LoadedModel, progress: _Progress) -> Explanation | None:
            reader = self._reader(loaded, how)
            return _explain(reader, loaded.tokenizer, whole, abstain_below, progress.step("read"))

        async with aclosing(self._run(home, work, stopper)) as updates:
            async for update in updates:
                yield update

    async def train(
        self, examples: object, name: str, *, model: str, prompt: str = "", stopper: Stopper | None = None
    ) -> AsyncGenerator[TrainUpdate, None]:
        """Trains a head on labelled examples and keeps it as `name`. `prompt` has `{text}` in it; empty for one that
        asks for such labels. Raises `InvalidInput`, `DiskFull`, and as `Leasing.call`."""
        taken = examples_from(examples, self._limits)
        wrapping = Wrapping(prompt) if prompt else None
        with self.heads.reserved(name, stopper.visitor if stopper else None) as path:

            def work(loaded: LoadedModel, progress: _Progress) -> Trained | None:
                return self._train(loaded, taken, wrapping, path, progress)

            async with aclosing(self._run(model, work, stopper)) as updates:
                async for update in updates:
                    yield update

    def names(self, models: Iterable[str], visitor: Visitor | None = None) -> list[str]:
        """The heads that `visitor` may use, then those of `models` that are classifying checkpoints, trained or not."""
        return [*self.heads.names(visitor), *filter(self._classifies, models)]

    def find(self, classifier: str, visitor: Visitor | None = None) -> Head:
        """A kept head that `visitor` may use, or the one of a checkpoint.

        Raises `UnknownClassifier`, `BadHead`, `UntrainedHead`.
        """
        try:
            return self.heads.find(classifier, visitor)
        except UnknownClassifier:
            try:
                entry = self._entry_of(classifier)
            except UnknownModel:
                entry = None
            if entry is None or entry.path is None or not is_classifier(entry.path):
                raise
            return read_checkpoint(entry.path, classifier, self._entry_of(entry.base).path if entry.base else None)

    def _classifies(self, model: str) -> bool:
        """False for a folder that cannot be read: whoever names it hears why from `find`."""
        try:
            return is_classifier(self._entry_of(model).path)
        except BadHead:
            return False

    async def _run(
        self, model: str, work: Callable[[LoadedModel, _Progress], T | None], stopper: Stopper | None
    ) -> AsyncGenerator[LoadProgress | Waiting | Working | T, None]:
        stopper = stopper or Stopper()
        progress = _Progress()
        stopper.attach(progress)
        calls = self._leasing.call(self._reads_with(model), lambda loaded: work(loaded, progress), stopper)
        made: T | None = None
        try:
            with self._leasing.metrics.request("classify"):
                async with aclosing(calls) as steps:
                    async for step in steps:
                        if isinstance(step, Done):
                            made = step.value
                        elif isinstance(step, Waiting) and step.place == 0:
                            yield progress.now
                        else:
                            yield step
        finally:
            progress.cancel()
        if made is not None:
            yield made

    def _decides(self, by: str | ZeroShot, model: str, stopper: Stopper | None) -> tuple[Head | ZeroShot, str]:
        """What decides, and the name of the model that it reads with."""
        if isinstance(by, ZeroShot):
            return by, model
        head = self.find(by, stopper.visitor if stopper else None)
        return head, self._home(head, model)

    def _home(self, head: Head, model: str) -> str:
        name = model or head.backbone.name
        try:
            self._reads_with(name)
        except UnknownModel:
            if model:
                raise
            reason = Reason("backbone.unlisted", trained=name) if name else Reason("backbone.nameless")
            raise WrongBackbone(head.name, reason) from None
        return name

    # On the thread that `Leasing.call` starts.

    def _reader(self, loaded: LoadedModel, by: Head | ZeroShot) -> Reader:
        if isinstance(by, ZeroShot):
            return by_labels(loaded, by, self._chosen)
        return by_head(loaded, by, self._features)

    def _train(
        self, loaded: LoadedModel, examples: Examples, wrapping: Wrapping | None, path: Path, progress: _Progress
    ) -> Trained | None:
        if wrapping is None:
            candidates = [Wrapping(prompt) for prompt in PROMPTS]
            able = loaded.engine.abilities.score
            wrapping = zero_shot.choose_prompt(loaded, candidates, examples.labels) if able else candidates[0]
        found = embed(loaded, self._features, wrapping, examples.texts, progress.step("read"))
        if found is None:
            return None
        classes = np.array(examples.classes, dtype=np.intp)
        fitted = training.train(found[0], classes, progress.step("fit"))
        if fitted is None or progress.ended:
            return None
        judged = [examples.texts[place] for place in fitted.judged]
        made = report(examples.labels, classes[fitted.judged], fitted.probabilities, judged)
        head = Head(
            name=path.name.removesuffix(heads.SUFFIX),
            labels=examples.labels,
            weight=fitted.weight.astype(np.float32),
            prompt=wrapping.prompt,
            backbone=Backbone(loaded.entry.name, loaded.entry.repo, _revision(loaded.entry.package)),
            probe=probe(loaded, self._features),
            figures={**made.figures(), "examples": len(examples.texts), "penalty": fitted.penalty},
        )
        heads.save(head, path)
        return Trained(head.name, loaded.entry.name, path, head.prompt, made)


class _Progress:
    """How far the work on a thread is, and whether it should go on."""

    def __init__(self) -> None:
        self.now = Working("read", 0, 0)
        self._ended = threading.Event()

    def step(self, name: str) -> Told:
        def told(done: int, total: int) -> bool:
            self.now = Working(name, done, total)
            return not self._ended.is_set()

        return told

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        self._ended.set()


def _explain(reader: Reader, tokenizer: Tokenizer, text: str, abstain_below: float, told: Told) -> Explanation | None:
    whole = reader.read((text,), told)
    if whole is None:
        return None
    (verdict,) = verdicts(reader.labels, reader.problem_type, *whole, abstain_below)
    text = text[: len(text) - verdict.cut_characters]
    parts = parts_of(text, len(tokenizer.encode_text(text)))
    found = reader.read(parts.variants, told) if parts.variants else (np.empty((0, len(reader.labels))), ())
    if found is None:
        return None
    moved = effects(reader.problem_type, whole[0][0], found[0])
    rows = zip(parts.spans, found[0].tolist(), moved.tolist(), strict=True)
    made = [
        Part(start, end, dict(zip(reader.labels, scores, strict=True)), dict(zip(reader.labels, effect, strict=True)))
        for (start, end), scores, effect in rows
    ]
    return Explanation(
        reader.classifier,
        reader.model,
        reader.prompt,
        reader.problem_type,
        text,
        verdict,
        tuple(made),
        words_each=parts.words,
    )


def _check_share(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InvalidParameter("threshold", value, Reason("expected.number", low=0, high=1))


def _revision(package: str) -> str:
    """The version of the package that carries the weights, where one does."""
    try:
        return f"{package} {metadata.version(package)}" if package else ""
    except metadata.PackageNotFoundError:
        return ""
