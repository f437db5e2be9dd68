"""The Models tab's handlers: what they show, whom they obey, and what they say to bad input."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_demo.catalog import EMBEDDED
from llama_demo.checkpoints import gguf
from llama_demo.engines.transformers import TransformersEngine
from llama_demo.engines.worker import Worker
from llama_demo.errors import DiskFull
from llama_demo.fitting import Needs
from llama_demo.jobs import JobProgress
from llama_demo.listing import DeviceMemory, Holder
from llama_demo.messages import messages
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.ui.model_cards import device, job_view, needs_words
from llama_demo.ui.models import ModelsPage
from llama_demo.values import ModelState
from llama_demo.visitors import NOBODY, Role, Visitor
from tests.hub_server import Behaviour, Refusal, pushing

OWNER = Visitor("key", Role.OWNER)
WORDS = messages()
GB = 10**9


@pytest.fixture
def runtime(tmp_path: Path, tiny_folder: Path) -> Iterator[Runtime]:
    with Runtime(Settings(cache_dir=tmp_path, model=str(tiny_folder), memory_gb=14.0, context_tokens=256)) as made:
        yield made


@pytest.fixture
def page(runtime: Runtime) -> ModelsPage:
    return ModelsPage(runtime)


def cards(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {card["name"]: card for group in view["groups"] for card in group["cards"]}


def offered(view: dict[str, Any], name: str) -> list[str]:
    return [action["do"] for action in cards(view)[name]["actions"]]


def test_the_owner_sees_everything_and_a_visitor_what_may_be_chosen_without_buttons(page: ModelsPage) -> None:
    owners, visitors = page.read({}, OWNER), page.read({}, NOBODY)
    assert [group["name"] for group in owners["groups"]] == ["here", "access", "too_large"]
    assert set(cards(visitors)) == {"tiny-llama", "smollm2-135m-instruct"}
    assert offered(owners, "tiny-llama") == ["load", "convert", "sheet"]
    assert all(offered(visitors, name) == ["sheet"] for name in cards(visitors))


def test_what_is_too_large_says_why_and_what_would_help(page: ModelsPage) -> None:
    card = cards(page.read({}, OWNER))["llama-2-70b-chat-hf"]
    assert card["needs"].startswith("Needs at least ")
    assert "14.0 GB" in card["needs"]
    assert any("GPU" in help_ for help_ in card["helps"])
    assert [action["do"] for action in card["actions"]] == ["sheet"]


def test_loading_pinning_and_unloading_are_seen_at_once_by_everybody(page: ModelsPage, runtime: Runtime) -> None:
    loading = page.act({"do": "load", "name": "tiny-llama"}, OWNER)
    assert not loading["error"]
    assert loading["moving"]
    with runtime.registry.lease("tiny-llama"):
        seen = page.read({}, NOBODY)
        assert cards(seen)["tiny-llama"]["state"] == ModelState.READY
        assert "in use by" in cards(seen)["tiny-llama"]["state_words"]
        part, libraries = seen["devices"][0]["parts"]
        assert libraries["title"] == WORDS("models.libraries")
        assert part["title"] == "tiny-llama"
        assert 0 < part["share"] < 1
        assert not part["unload"]
    pinned = page.act({"do": "pin", "name": "tiny-llama"}, OWNER)
    assert offered(pinned, "tiny-llama") == ["unload", "unpin", "convert", "use", "sheet"]
    unloaded = page.act({"do": "unload", "name": "tiny-llama"}, OWNER)
    assert cards(unloaded)["tiny-llama"]["state"] in (ModelState.DRAINING, ModelState.ABSENT)


@pytest.mark.parametrize("do", ["load", "unload", "pin", "unpin", "cancel", "download", "convert", "check_access"])
def test_nobody_but_the_owner_changes_anything(page: ModelsPage, runtime: Runtime, do: str) -> None:
    view = page.act({"do": do, "name": "tiny-llama"}, NOBODY)
    assert view["error"]
    assert runtime.registry.statuses() == {}
    assert runtime.management.jobs.progress("tiny-llama") is None


def test_nobody_but_the_owner_adds_models_or_signs_in(page: ModelsPage, tiny_folder: Path) -> None:
    assert page.add({"path": str(tiny_folder)}, NOBODY)["error"] == WORDS("error.OwnerOnly")
    assert page.sign_in({"token": "hf_x"}, NOBODY)["error"] == WORDS("error.OwnerOnly")


def test_an_added_model_is_listed_and_offered_once_it_is_loaded(
    page: ModelsPage, runtime: Runtime, tiny_sentencepiece_folder: Path
) -> None:
    view = page.add({"path": f" {tiny_sentencepiece_folder} "}, OWNER)
    assert not view["error"]
    assert "tiny-llama-sentencepiece" in view["done"]
    assert cards(view)["tiny-llama-sentencepiece"]["where"] == "here"
    assert "tiny-llama-sentencepiece" not in cards(page.read({}, NOBODY))
    page.act({"do": "load", "name": "tiny-llama-sentencepiece"}, OWNER)
    assert "tiny-llama-sentencepiece" in cards(page.read({}, NOBODY))
    with runtime.registry.lease("tiny-llama-sentencepiece") as loaded:
        assert loaded.healthy


@pytest.mark.parametrize("path", [None, 5, "", "no such thing", "/nowhere/at/all", "x.gguf", "\x00", "x" * 5000])
def test_what_is_no_model_is_not_added(page: ModelsPage, path: Any) -> None:
    before = cards(page.read({}, OWNER))
    view = page.add({"path": path}, OWNER)
    assert view["error"]
    assert view["error"] != WORDS("error.unexpected")
    assert set(cards(view)) == set(before)


@pytest.mark.parametrize("token", [None, 5, "", "  ", ["hf_x"]])
def test_a_token_that_is_none_is_refused_and_never_said(page: ModelsPage, token: Any) -> None:
    assert page.sign_in({"token": token}, OWNER)["error"]


def test_a_job_says_bytes_speed_and_time_left() -> None:
    going = JobProgress("download", 1_000_000_000, 4_000_000_000, 50_000_000.0, 60.0, None)
    view = job_view(going, WORDS)
    assert view["words"] == "downloading · 1.0 GB of 4.0 GB · 50 MB/s · 60 s left"
    assert view["share"] == 0.25
    failed = JobProgress("convert", 0, 0, None, None, DiskFull("/x", 5_000_000, 1_000))
    assert job_view(failed, WORDS) == {"share": None, "words": WORDS.error(failed.error), "failed": True}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [None, 5, [], {}, {"do": "load"}, {"do": ["load"], "name": "x"}, {"do": "__class__", "name": "tiny-llama"}],
)
def test_bad_requests_get_a_sentence(page: ModelsPage, asked: Any) -> None:
    view = page.act(asked, OWNER)
    assert view["error"]
    assert view["error"] != WORDS("error.unexpected")
    assert view["groups"]


def test_an_unknown_model_is_named_with_the_nearest(page: ModelsPage) -> None:
    assert "tiny-llama" in page.act({"do": "load", "name": "tiny-lama"}, OWNER)["error"]


def test_a_model_that_is_too_large_is_refused_with_its_numbers(page: ModelsPage) -> None:
    assert "14.0 GB" in page.act({"do": "load", "name": "llama-2-70b-chat-hf"}, OWNER)["error"]
    assert "llama-2-70b-chat-hf" not in cards(page.read({}, NOBODY))


def test_a_web_page_in_a_configurations_place_says_so_on_its_card(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("<!DOCTYPE html>")
    with Runtime(Settings(cache_dir=tmp_path / "cache", model=str(broken))) as runtime:
        card = cards(ModelsPage(runtime).read({}, OWNER))["broken"]
    assert card["where"] == "broken"
    assert card["failed"]
    assert "not readable as a configuration" in card["state_words"]


def test_the_sheet_says_what_the_files_say_and_what_holds_without(page: ModelsPage) -> None:
    sheet = page.sheet({"name": "tiny-llama"}, NOBODY)
    assert not sheet["error"]
    fields = {field["name"]: field for field in sheet["fields"]}
    assert fields["hidden_size"]["value"] == "128"
    assert fields["num_key_value_heads"]["is_given"]
    assert all(field["help"] for field in fields.values())
    assert "n times as many products" in fields["pretraining_tp"]["help"]
    assert sum(part["share"] for part in sheet["parts"]) == pytest.approx(1)
    assert "4 query heads share 2" in sheet["attention"]["words"]


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"cached_conversations": 4, "dtype": "bfloat16"}, "16 bits"),
        ({"cached_conversations": 3, "dtype": "float32"}, "32 bits"),
        ({"cached_conversations": 3, "model": "gguf"}, "8 bits with their scales"),
        ({"cached_conversations": 1, "model": "gguf", "reproducible": True}, "32 bits"),
    ],
)
def test_the_sheet_says_how_the_cache_is_held_here_and_the_engine_holds_it_so(
    options: dict[str, Any], held: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[int] = []
    load = Worker.load

    def watched(worker: Worker, *order: Any) -> Any:
        loaded = load(worker, *order)
        caches.append(loaded.cache_bytes)
        return loaded

    monkeypatch.setattr(Worker, "load", watched)
    model = tiny_folder
    if options.pop("model", "") == "gguf":
        model = tmp_path / "tiny-llama.gguf"
        gguf.write_gguf(tiny_folder, model, to="q8_0")
    settings = Settings(cache_dir=tmp_path / "cache", model=str(model), memory_gb=8.0, context_tokens=256, **options)
    with Runtime(settings) as runtime:
        line = ModelsPage(runtime).sheet({"name": "tiny-llama"}, NOBODY)["cache"][-1]
        each = {"8 bits with their scales": "480", "16 bits": "768", "32 bits": "1\u2009536"}[held]
        assert f"kept in {held}: {each} bytes a token" in line
        assert f"{settings.cached_conversations} \u00d7 256 tokens" in line
        needs = runtime.needs("tiny-llama")
        assert needs is not None
        with runtime.registry.lease("tiny-llama") as loaded:
            if isinstance(loaded.engine, TransformersEngine):
                caches.append(loaded.engine._batch.cache_bytes)
            assert caches == [pytest.approx(needs.cache_bytes, rel=0.1)]
            assert loaded.healthy


def test_a_visitor_has_no_sheet_of_what_is_not_offered(page: ModelsPage) -> None:
    assert page.sheet({"name": "llama-2-70b"}, NOBODY)["error"]
    assert not page.sheet({"name": "llama-2-70b"}, OWNER)["error"]


def test_the_playground_shows_pieces_numbers_and_bytes(page: ModelsPage) -> None:
    view = page.split({"name": "tiny-llama", "text": "The harbour", "bos": True}, NOBODY)
    assert not view["error"]
    assert view["pieces"][0]["special"]
    assert "".join(piece["text"] for piece in view["pieces"]) == "The harbour"
    assert bytes.fromhex("".join(piece["bytes"] for piece in view["pieces"])) == b"The harbour"


@pytest.mark.parametrize(
    "asked",
    [
        None,
        {},
        {"name": 5},
        {"name": "tiny-llama", "text": 5},
        {"name": "tiny-llama", "text": "x" * 2001},
        {"name": "no such", "text": ""},
        {"name": "tiny-llama", "text": "\ud800"},
    ],
)
def test_the_playground_answers_bad_requests_with_a_sentence(page: ModelsPage, asked: Any) -> None:
    view = page.split(asked, NOBODY)
    assert view["error"]
    assert view["error"] != WORDS("error.unexpected")
    assert view["pieces"] == []


def test_the_tab_speaks_the_visitors_language(page: ModelsPage) -> None:
    korean = page.read({"language": "ko"}, OWNER)
    assert cards(korean)["tiny-llama"]["badge"] == messages("ko")("models.where_here")


def test_what_a_load_takes_for_a_moment_more_is_said(page: ModelsPage) -> None:
    assert "While it is loading" not in cards(page.read({}, OWNER))["tiny-llama"]["needs"]
    needs = Needs("CPU", 10 * GB, 2 * GB, GB, 4096, 8, 40 * GB, peak_bytes=21 * GB)
    assert needs_words(needs, WORDS, fits=True).endswith("While it is loading it takes up to 21.0 GB for a moment.")


def test_libraries_that_serve_all_models_and_stay_have_a_part_of_the_bar_that_nobody_can_unload() -> None:
    needs = Needs("CPU", 10 * GB, 2 * GB, GB, 4096, 8, 40 * GB, kept_bytes=GB // 2)
    assert "500 MB of that are libraries" in needs_words(needs, WORDS, fits=True)
    model = Holder("a", "A", 10 * GB, 0, ModelState.READY, is_analysis=False, pinned=False)
    bar = device(DeviceMemory("CPU", 12 * GB, 40 * GB, (model,), kept_bytes=2 * GB), WORDS, owner=True)
    assert [(part["size"], bool(part["unload"])) for part in bar["parts"]] == [("10.0 GB", True), ("2.0 GB", False)]
    assert sum(part["share"] for part in bar["parts"]) == pytest.approx(12 / 40)
    gone = device(DeviceMemory("CPU", 2 * GB, 40 * GB, kept_bytes=2 * GB), WORDS, owner=True)
    assert [part["title"] for part in gone["parts"]] == [WORDS("models.libraries")]
    assert gone["empty"]


def test_a_sheet_says_what_is_written_again_before_it_is_loaded(tmp_path: Path, embedded_gguf: Path) -> None:
    with Runtime(Settings(cache_dir=tmp_path)) as runtime:
        page = ModelsPage(runtime)
        english, korean = (page.sheet({"name": EMBEDDED.name, "language": name}, NOBODY) for name in ("en", "ko"))
        assert "stored as Q4_1" in english["source"]
        assert "Q4_1 형식" in korean["source"]
        gguf.requantize(embedded_gguf, tmp_path / "faithful.gguf")
        name = runtime.management.add(str(tmp_path / "faithful.gguf"))
        assert "Q8_0" not in page.sheet({"name": name}, OWNER)["source"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    (tmp_path / "hub").mkdir()
    with pushing(tmp_path / "hub", monkeypatch) as behaviour:
        yield behaviour


def wait_for_push(runtime: Runtime) -> None:
    for thread in threading.enumerate():
        if thread.name == "push tiny-llama":
            thread.join(60)


def test_the_owner_puts_a_changed_model_on_the_hub_privately_once_the_licence_is_confirmed(
    page: ModelsPage, runtime: Runtime, hub: Behaviour
) -> None:
    (offered_here,) = [each for each in page.read({}, OWNER)["pushable"] if each["name"] == "tiny-llama"]
    assert "only as its licence allows" in offered_here["terms"]
    assert page.read({}, NOBODY)["pushable"] == []
    asked = {"name": "tiny-llama", "repo": "somebody/made", "dtype": "bfloat16", "pad_token": "<pad>", "slices": 2}
    assert page.push(asked, OWNER)["error"] == offered_here["terms"]
    assert page.push({**asked, "confirmed": True}, NOBODY)["error"]
    assert not hub.pushed
    view = page.push({**asked, "confirmed": True}, OWNER)
    assert not view["error"]
    assert "somebody/made" in view["done"]
    wait_for_push(runtime)
    card = cards(page.read({}, OWNER))["tiny-llama"]
    assert card["job"] is None
    assert card["pushed"].endswith("/somebody/made")
    assert not cards(page.read({}, NOBODY))["tiny-llama"]["pushed"]
    assert hub.private["somebody/made"]
    files = hub.pushed["somebody/made"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(files)
    config = json.loads(files["config.json"])
    assert (config["torch_dtype"], config["pretraining_tp"]) == ("bfloat16", 2)
    assert config["pad_token_id"] is not None


def test_a_push_that_the_hub_refuses_is_told_on_the_card(page: ModelsPage, runtime: Runtime, hub: Behaviour) -> None:
    hub.refusals["somebody/made"] = Refusal(403, "", "no")
    page.push({"name": "tiny-llama", "repo": "somebody/made", "confirmed": True}, OWNER)
    wait_for_push(runtime)
    card = cards(page.read({}, OWNER))["tiny-llama"]
    assert card["job"]["failed"]
    assert "somebody/made" in card["job"]["words"]
    assert not card["pushed"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo": "no-owner"},
        {"repo": "이름/model"},
        {"repo": 1},
        {"dtype": "4-bit"},
        {"slices": 65},
        {"slices": True},
        {"pad_token": None},
        {"name": "x"},
    ],
)
def test_a_push_that_cannot_be_is_refused_with_a_sentence(page: ModelsPage, wrong: dict[str, Any]) -> None:
    asked = {"name": "tiny-llama", "repo": "somebody/made", "confirmed": True, **wrong}
    assert page.push(asked, OWNER)["error"]
