"""The whole way from texts to verdicts, on the tests' own model in a registry."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints.llama import read_folder
from llama_demo.classify import head as heads
from llama_demo.classify.labels import labels_from
from llama_demo.classify.results import Explanation, Trained, Verdicts, Working
from llama_demo.classify.service import Classification
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.classify_errors import NoNumbers
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.errors import (
    BadExamples,
    DiskFull,
    InvalidParameter,
    NameTaken,
    UnknownClassifier,
    UnknownModel,
    UntrainedHead,
    WrongBackbone,
)
from llama_demo.leasing import Leasing, Stopper
from llama_demo.limits import Admission, Limits
from llama_demo.loading import LoadedModel
from llama_demo.messages import messages
from llama_demo.registry import Plan, Registry
from tests import tiny
from tests.classify.test_export import theirs
from tests.scripted import loaded

MODEL = EMBEDDED.name
SEA = ["harbour", "boats", "tide", "net", "wind"]
LAND = ["bread", "baker", "street", "school", "stones"]
EXAMPLES = [
    {"text": f"{one} and {other}", "label": label}
    for label, words in (("sea", SEA), ("land", LAND))
    for one, other in itertools.permutations(words, 2)
]


class World:
    def __init__(self, folder: Path, model: Path) -> None:
        engine = TransformersEngine(
            model, name="tiny", eos_ids=(), context_tokens=tiny.CONTEXT_TOKENS, reproducible=True
        )
        self.loaded = loaded(engine, model)
        self.registry: Registry[LoadedModel] = Registry(
            budgets={"CPU": 10},
            plan=lambda _: Plan("CPU", 1),
            load=lambda *_: self.loaded,
            idle_seconds=None,
            wait_seconds=5,
        )
        self.service = Classification(
            Leasing(self.registry, Admission(4, 4)),
            Limits(10_000, 100, tiny.CONTEXT_TOKENS),
            reads_with=self.reads_with,
            entry_of=lambda _: EMBEDDED,
            checkpoint=lambda _, __: read_folder(model),
            folder=folder,
        )

    def reads_with(self, name: str) -> str:
        if name != MODEL:
            raise UnknownModel(name, MODEL)
        return name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("heads"), tiny_folder)
    yield made
    made.registry.close()


@pytest.fixture(scope="module")
def trained(world: World) -> Trained:
    made = last(world.service.train(EXAMPLES, "mine", model=MODEL))
    assert isinstance(made, Trained)
    return made


def everything(updates: AsyncGenerator[Any, None]) -> list[Any]:
    async def read() -> list[Any]:
        async with aclosing(updates):
            return [update async for update in updates]

    return asyncio.run(read())


def last(updates: AsyncGenerator[Any, None]) -> Any:
    return everything(updates)[-1]


def test_a_trained_head_is_kept_reported_and_used(world: World, trained: Trained) -> None:
    assert trained.report.counts == (20, 20)
    assert trained.report.labels == ("land", "sea")
    assert trained.report.accuracy > 0.8
    found = last(world.service.classify(["tide and boats", "school and bread"], "mine"))
    assert isinstance(found, Verdicts)
    assert [verdict.label for verdict in found.verdicts] == ["sea", "land"]
    assert sum(found.verdicts[0].scores.values()) == pytest.approx(1.0)
    assert "mine" in world.service.heads.names()
    kept = heads.load(trained.path)
    assert kept.prompt == trained.prompt
    assert kept.figures is not None
    assert kept.figures["accuracy"] == trained.report.accuracy
    assert "harbour" not in trained.path.read_bytes().decode("latin-1")


def test_a_text_has_the_same_scores_alone_and_among_64_of_many_lengths(world: World, trained: Trained) -> None:
    texts = ["boats " * (1 + number % 40) + str(number) for number in range(64)]
    together = last(world.service.classify(texts, "mine")).verdicts
    for place in (0, 7, 39, 63):
        world.service._features._kept.clear()
        alone = last(world.service.classify([texts[place]], "mine")).verdicts[0]
        assert alone.scores == pytest.approx(together[place].scores, abs=1e-4)


def test_progress_is_told_while_it_works(world: World, trained: Trained) -> None:
    updates = everything(world.service.classify([f"boats {number} " * 20 for number in range(400)], "mine"))
    assert isinstance(updates[-1], Verdicts)
    assert any(isinstance(update, Working) for update in updates)


def test_a_long_text_is_cut_and_said(world: World, trained: Trained) -> None:
    verdict = last(world.service.classify(["boats and nets " * 400], "mine")).verdicts[0]
    assert 0 < verdict.cut_characters < 6000
    assert last(world.service.classify(["boats"], "mine")).verdicts[0].cut_characters == 0


def test_below_the_threshold_there_is_no_label(world: World, trained: Trained) -> None:
    assert last(world.service.classify(["boats"], "mine", abstain_below=1.0)).verdicts[0].label is None
    for value in (-0.1, 1.1, float("nan"), "half", None, True):
        with pytest.raises(InvalidParameter):
            everything(world.service.classify(["boats"], "mine", abstain_below=value))  # type: ignore[arg-type]


def test_zero_shot_gives_a_probability_for_every_label(world: World) -> None:
    asked = ZeroShot(labels_from(["bread", "the old town", "winter"]))
    found = last(world.service.classify(["a", "b"], asked, model=MODEL))
    assert len(found.verdicts) == 2
    for verdict in found.verdicts:
        assert sum(verdict.scores.values()) == pytest.approx(1.0)
        assert verdict.label == max(verdict.scores, key=verdict.scores.__getitem__)


def odds(share: float) -> float:
    return float(np.log(share / (1 - share)))


@pytest.mark.parametrize("by", ["mine", ZeroShot(labels_from(["sea", "land"]))])
def test_an_explanation_tells_what_leaving_each_word_out_does(world: World, trained: Trained, by: Any) -> None:
    model = MODEL if isinstance(by, ZeroShot) else ""

    def scores(text: str) -> Any:
        return last(world.service.classify([text], by, model=model)).verdicts[0].scores

    text = "school and tide and boats"
    made = last(world.service.explain(text, by, model=model))
    assert isinstance(made, Explanation)
    assert made.method == "leave_one_out"
    assert made.words_each == 1
    assert [text[part.start : part.end] for part in made.parts] == text.split()
    assert made.verdict.scores == pytest.approx(scores(text), abs=1e-4)
    left = scores("and tide and boats")
    assert made.parts[0].scores == pytest.approx(left, abs=1e-4)
    for label in ("sea", "land"):
        assert made.parts[0].effects[label] == pytest.approx(odds(scores(text)[label]) - odds(left[label]), abs=2e-3)


def test_an_explanation_reads_all_its_variants_at_once_and_only_what_fits_the_context(
    world: World, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    embed = world.loaded.engine.embed

    def counting(batch: Any) -> Any:
        asked.append(len(batch))
        return embed(batch)

    monkeypatch.setattr(world.loaded.engine, "embed", counting)
    made = last(world.service.explain("boats and nets " * 400, "mine"))
    assert made.words_each > 1
    assert len(made.parts) in asked
    assert made.verdict.cut_characters == 6000 - len(made.text)
    assert made.parts[-1].end == len(made.text.rstrip())
    assert last(world.service.explain("boats", "mine")).parts == ()
    with pytest.raises(BadExamples):
        last(world.service.explain(" ", "mine"))


def test_a_stopped_explanation_gives_nothing(world: World, trained: Trained) -> None:
    stopper = Stopper()
    stopper.stop()
    updates = everything(world.service.explain("boats and nets", "mine", stopper=stopper))
    assert not any(isinstance(update, Explanation) for update in updates)


def test_the_prompt_for_labels_is_chosen_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls = ZeroShot(labels_from(["bread", "winter"])), []
    score = world.loaded.engine.score_endings

    def counting(prompts: Any, endings: Any) -> Any:
        calls.append(len(prompts))
        return score(prompts, endings)

    monkeypatch.setattr(world.loaded.engine, "score_endings", counting)
    first = last(world.service.classify(["boats"], asked, model=MODEL))
    begun = len(calls)
    again = last(world.service.classify(["boats"], asked, model=MODEL))
    assert again.verdicts[0].scores == pytest.approx(first.verdicts[0].scores)
    assert len(calls) - begun < begun / 2


def test_two_trainings_under_one_name_are_refused(world: World, trained: Trained) -> None:
    before = trained.path.read_bytes()
    with pytest.raises(NameTaken):
        everything(world.service.train(EXAMPLES, "mine", model=MODEL))
    assert trained.path.read_bytes() == before

    async def both() -> None:
        first = world.service.train(EXAMPLES, "two", model=MODEL)
        await anext(first)
        with pytest.raises(NameTaken):
            await anext(world.service.train(EXAMPLES, "two", model=MODEL))
        await first.aclose()

    asyncio.run(both())
    assert "two" not in world.service.heads.names()


def test_a_stopped_training_leaves_nothing_and_its_name_is_free(world: World) -> None:
    stopper = Stopper()

    async def stop() -> list[Any]:
        updates = []
        async for update in world.service.train(EXAMPLES, "stopped", model=MODEL, stopper=stopper):
            updates.append(update)
            stopper.stop()
        return updates

    assert not any(isinstance(update, Trained) for update in asyncio.run(stop()))
    assert "stopped" not in world.service.heads.names()
    with world.service.heads.reserved("stopped"):
        pass


def test_bad_names_models_and_examples_are_refused_before_anything_is_read(world: World) -> None:
    with pytest.raises(UnknownClassifier) as raised:
        everything(world.service.classify(["x"], "mime"))
    assert raised.value.name == "mime"
    with pytest.raises(InvalidParameter):
        everything(world.service.train(EXAMPLES, "../up", model=MODEL))
    with pytest.raises(BadExamples):
        everything(world.service.train(EXAMPLES[:20], "one class", model=MODEL))
    with pytest.raises(UnknownModel):
        everything(world.service.train(EXAMPLES, "nowhere", model="gpt"))
    with pytest.raises(InvalidParameter):
        everything(world.service.train(EXAMPLES, "promptless", model=MODEL, prompt="no place"))


def test_a_file_without_a_trained_head_never_yields_a_number(world: World, trained: Trained) -> None:
    from safetensors.numpy import save_file

    path = world.service.heads.path("empty")
    save_file({"model.norm.weight": np.ones(4, np.float32)}, path)
    with pytest.raises(UntrainedHead):
        everything(world.service.classify(["x"], "empty"))
    path.unlink()


def test_a_head_is_refused_on_another_backbone(
    world: World, trained: Trained, tiny_sentencepiece_folder: Path, tmp_path: Path
) -> None:
    other = World(tmp_path, tiny_sentencepiece_folder)
    try:
        other.service.heads.add(trained.path, "upload", "theirs")
        with pytest.raises(WrongBackbone):
            everything(other.service.classify(["x"], "theirs"))
    finally:
        other.registry.close()


def test_what_is_no_number_is_neither_shown_nor_learned_from(
    world: World, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, score = world.loaded.engine.embed, world.loaded.engine.score_endings
    monkeypatch.setattr(world.loaded.engine, "embed", lambda batch: embed(batch) * np.float32("nan"))
    monkeypatch.setattr(world.loaded.engine, "score_endings", lambda *asked: score(*asked) * np.float32("nan"))
    asked = ZeroShot(labels_from(["a", "b"]), "{text} is")
    fresh = [{**example, "text": f"{example['text']} again"} for example in EXAMPLES]
    for updates in (
        world.service.classify(["a text never read before"], "mine"),
        world.service.classify(["boats"], asked, model=MODEL),
        world.service.train(fresh, "nothing", model=MODEL),
    ):
        with pytest.raises(NoNumbers):
            everything(updates)
    assert "nothing" not in world.service.heads.names()
    world.service._features._kept.clear()


def test_a_full_disk_leaves_no_head_and_its_name_free(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(DiskFull):
            everything(world.service.train(EXAMPLES, "large", model=MODEL))
    path = world.service.heads.path("large")
    assert not list(path.parent.glob("*large*"))
    (path.parent / ".large.safetensors.1234.partial").write_bytes(b"half")
    assert "large" not in str(world.service.heads.names())
    assert isinstance(last(world.service.train(EXAMPLES, "large", model=MODEL)), Trained)
    world.service.heads.remove("large")


def test_a_head_of_another_width_is_refused(world: World, trained: Trained) -> None:
    head = heads.load(trained.path)
    narrow = replace(head, name="narrow", weight=head.weight[:, :64].copy(), probe=None)
    heads.save(narrow, world.service.heads.path("narrow"))
    with pytest.raises(WrongBackbone, match="64"):
        everything(world.service.classify(["boats"], "narrow"))
    world.service.heads.remove("narrow")


def test_an_exported_head_gives_the_same_scores_in_plain_transformers(
    world: World, trained: Trained, tmp_path: Path
) -> None:
    texts = ["tide and boats", "school", "bread and a net, and more than that"]
    last(world.service.sharing.export("mine", tmp_path / "exported", messages()))
    shares = theirs(tmp_path / "exported", texts, "right").logits.softmax(-1).numpy()
    verdicts = last(world.service.classify(texts, "mine")).verdicts
    assert np.abs(shares - [[each.scores["land"], each.scores["sea"]] for each in verdicts]).max() <= 1e-4


def test_a_head_can_be_taken_away_and_brought_back_under_another_name(world: World, trained: Trained) -> None:
    before = last(world.service.classify(["tide"], "mine")).verdicts[0].scores
    world.service.heads.add(trained.path, "upload", "again")
    assert last(world.service.classify(["tide"], "again")).verdicts[0].scores == pytest.approx(before)
    world.service.heads.remove("again")
    with pytest.raises(UnknownClassifier):
        world.service.heads.remove("again")
