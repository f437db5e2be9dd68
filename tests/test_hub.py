"""Downloads from a stand-in Hub by real `huggingface_hub` calls: cut off, killed, damaged, refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from llama_demo import hub
from llama_demo.entry_files import META_FILES
from llama_demo.hub_fetch import part_of
from tests.hub_server import Behaviour, Refusal, serving
from tests.waiting import wait_until

REPO = "somebody/Llama"
LINK = "https://huggingface.co/"

PROGRAM = """
import json, sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 50_000
from llama_demo import hub
from llama_demo.errors import LlamaDemoError

def download(repo):
    told = []
    folder = hub.download(repo, ["*"], lambda done, total: told.append((done, total)))
    return {"folder": str(folder), "told": told}

if sys.argv[1] == "full":
    import shutil
    usage = shutil.disk_usage("/")
    shutil.disk_usage = lambda path: usage._replace(free=1_000_000)

if sys.argv[1] == "sign in":
    from huggingface_hub import constants, get_token
    from pathlib import Path
    for token, remember in (("hf_bad", False), ("hf_\u00e9", False), ("hf_good", False), ("hf_good", True)):
        try:
            who = hub.sign_in(token, remember=remember)
            print(json.dumps([who, get_token(), Path(constants.HF_TOKEN_PATH).exists()]))
        except LlamaDemoError as error:
            print(json.dumps({"error": type(error).__name__, "token": get_token(), **error.data()}))
    sys.exit()

def add(repo):
    from llama_demo.added_models import entry_for
    return entry_for(repo, []).name

does = {"check": hub.check_access, "add": add}.get(sys.argv[1], download)
for repo in sys.argv[2:]:
    try:
        print(json.dumps(does(repo)))
    except LlamaDemoError as error:
        print(json.dumps({"error": type(error).__name__, **error.data()}, default=repr))
"""


def start(endpoint: str, home: Path, what: str, *repos: str, token: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "PYTHONPATH": str(Path(hub.__file__).parent.parent),
    }
    command = [sys.executable, "-c", PROGRAM, what, *repos]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(endpoint: str, home: Path, what: str, *repos: str, token: str = "") -> list[Any]:
    with start(endpoint, home, what, *repos, token=token) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    (made / "model.safetensors").write_bytes(random.Random(1).randbytes(3_000_000))
    (made / "config.json").write_text("{}")
    return made


def same(answer: dict[str, Any], folder: Path) -> bool:
    got = Path(answer["folder"])
    return all((got / file.name).read_bytes() == file.read_bytes() for file in folder.iterdir())


def left(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.name.endswith(("part", "incomplete"))]


def test_a_download_cut_off_at_a_random_byte_goes_on_from_there(folder: Path, tmp_path: Path) -> None:
    acts = Behaviour(cuts=[random.Random(5).randrange(100_000, 2_900_000), 70_000])
    with serving(REPO, folder, acts) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert same(answer, folder)
    starts = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in acts.ranges]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < 3_000_000
    told = [done for done, _ in answer["told"]]
    assert told == sorted(told)
    assert answer["told"][-1] == [3_000_002, 3_000_002]
    assert not left(tmp_path / "home")


def test_a_killed_download_goes_on_from_there_in_the_next_process(folder: Path, tmp_path: Path) -> None:
    acts = Behaviour(held=threading.Event())
    with serving(REPO, folder, acts) as endpoint:
        with start(endpoint, tmp_path / "home", "download", REPO) as process:
            wait_until(lambda: any(part.stat().st_size > 1_000_000 for part in left(tmp_path / "home")))
            process.kill()
        assert acts.held is not None
        acts.held.set()
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert same(answer, folder)
    assert int(acts.ranges[-1].removeprefix("bytes=").split("-")[0]) > 1_000_000
    assert not left(tmp_path / "home")


def test_a_file_that_arrives_damaged_is_refused_and_thrown_away(folder: Path, tmp_path: Path) -> None:
    acts = Behaviour(damage=True)
    with serving(REPO, folder, acts) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
        assert (answer["error"], answer["repo"], answer["file"]) == ("DownloadDamaged", REPO, "model.safetensors")
        assert not left(tmp_path / "home")
        acts.damage = False
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert same(answer, folder)


def test_a_full_disk_is_said_before_anything_large_is_fetched(folder: Path, tmp_path: Path) -> None:
    with serving(REPO, folder) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "full", REPO)
    assert (answer["error"], answer["needed_bytes"], answer["free_bytes"]) == ("DiskFull", 3_000_002, 1_000_000)
    assert not left(tmp_path / "home")


def test_a_disk_that_fills_up_meanwhile_is_said(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "home" / "hub" / "models--somebody--Llama" / "blobs"
    blobs.mkdir(parents=True)
    etag = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    part_of(blobs, etag).symlink_to("/dev/full")  # every write to it fails as on a full disk
    with serving(REPO, folder) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert answer["error"] == "DiskFull"
    assert 0 < answer["needed_bytes"] <= 3_000_002
    assert answer["free_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)


@pytest.mark.slow
def test_a_hub_that_goes_away_midway_is_said_and_what_came_is_kept(folder: Path, tmp_path: Path) -> None:
    acts = Behaviour(cuts=[1_500_000, *[0] * 6])
    with serving(REPO, folder, acts) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
        assert answer["error"] == "HubUnavailable"
        assert answer["problem"] == "the connection broke off; what came is kept"
        assert [part.stat().st_size for part in left(tmp_path / "home")] == [1_500_000]
        (answer,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert same(answer, folder)
    assert acts.ranges[-1].startswith("bytes=1500000-")


def test_a_hub_that_stops_in_the_middle_is_asked_anew_for_the_rest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    acts = Behaviour(held=threading.Event())
    assert acts.held is not None
    with serving(REPO, folder, acts) as endpoint, start(endpoint, tmp_path / "home", "download", REPO) as process:
        wait_until(lambda: bool(acts.ranges))
        acts.held.set()
        out, err = process.communicate(timeout=60)
    assert same(json.loads(out), folder), err
    assert int(acts.ranges[0].removeprefix("bytes=").split("-")[0]) == 1_500_000


@pytest.mark.parametrize(
    ("config", "problem"),
    [('{"architectures": ["MistralForCausalLM"]}', "LlamaForCausalLM"), ("<html>", "no_configuration")],
)
def test_a_repository_that_is_no_llama_is_not_added_and_its_weights_are_not_fetched(
    config: str, problem: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "config.json").write_text(config)
    with serving(REPO, folder) as endpoint:
        (answer,) = run(endpoint, tmp_path / "home", "add", REPO)
    assert answer["error"] == "BadCheckpoint"
    assert problem in answer["problem"]
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_what_is_here_is_used_without_the_network(folder: Path, tmp_path: Path) -> None:
    with serving(REPO, folder) as endpoint:
        (first,) = run(endpoint, tmp_path / "home", "download", REPO)
    (again,) = run(endpoint, tmp_path / "home", "download", REPO)
    assert again["folder"] == first["folder"]
    (other,) = run(endpoint, tmp_path / "home", "download", "somebody/Else")
    assert other["error"] == "HubUnavailable"


@pytest.mark.parametrize("shards", [1, 2])
def test_an_original_model_counts_as_here_only_with_every_shard_that_its_checklist_names(
    shards: int, tmp_path: Path
) -> None:
    folder = tmp_path / "models--somebody--Llama" / "snapshots" / ("0123456789" * 4)
    folder.mkdir(parents=True)
    names = [f"consolidated.{number:02}.pth" for number in range(2)]
    (folder / "checklist.chk").write_text("".join(f"{'0' * 32}  {name}\n" for name in [*names, "params.json"]))
    for name in (*names[:shards], "params.json", "tokenizer.model"):
        (folder / name).write_bytes(b"x")
    found = hub.cached(REPO, META_FILES, folder.name, cache_dir=tmp_path)
    assert found == (folder if shards == 2 else None)


def test_with_a_token_that_is_nobodys_what_is_here_is_used_and_else_the_token_is_named(
    folder: Path, tmp_path: Path
) -> None:
    wrong = "hf_" + "x" * 34
    with serving(REPO, folder, Behaviour(knows_everybody=False)) as endpoint:
        (first,) = run(endpoint, tmp_path / "home", "download", REPO)
        (again,) = run(endpoint, tmp_path / "home", "download", REPO, token=wrong)
        (refused,) = run(endpoint, tmp_path / "empty", "download", REPO, token=wrong)
    assert again["folder"] == first["folder"]
    assert refused["error"] == "TokenInvalid"
    assert wrong not in json.dumps(refused)


RESTRICTED = "Access to model {} is restricted"
STATES = {
    "a/no-token": (
        Refusal(401, "GatedRepo", f"{RESTRICTED}. You must have access to it and be authenticated to access it."),
        "NoToken",
    ),
    "a/not-asked": (
        Refusal(403, "GatedRepo", f"{RESTRICTED} and you are not in the authorized list. Visit {LINK}a to ask."),
        "AccessNotRequested",
    ),
    "a/reset": (
        Refusal(403, "GatedRepo", "Your request to access model {} has been reset by the repo's authors."),
        "AccessNotRequested",
    ),
    "a/pending": (
        Refusal(403, "GatedRepo", "Your request to access model {} is awaiting a review from the repo authors."),
        "AccessPending",
    ),
    "a/rejected": (
        Refusal(403, "GatedRepo", "Your request to access model {} has been rejected by the repo's authors."),
        "AccessRejected",
    ),
    "a/other": (Refusal(403, "GatedRepo", "Something that the Hub never said before."), "AccessNeeded"),
    "a/invalid": (Refusal(401, "", "Invalid credentials in Authorization header"), "TokenInvalid"),
    "a/expired": (Refusal(401, "", 'User Access Token "mine" is expired'), "TokenInvalid"),
    "a/scope": (
        Refusal(403, "", "Please enable access to public gated repositories in your fine-grained token settings"),
        "TokenLacksScope",
    ),
    "a/down": (Refusal(503, "", "Service Unavailable"), "HubUnavailable"),
    "a/missing": (Refusal(404, "RepoNotFound", "Repository not found"), "HubUnavailable"),
}


@pytest.mark.parametrize("what", ["check", "download"])
def test_each_state_of_access_gives_its_own_error(what: str, folder: Path, tmp_path: Path) -> None:
    refusals = {
        name: Refusal(refusal.status, refusal.code, refusal.message.format(name))
        for name, (refusal, _) in STATES.items()
    }
    # A download asks a Hub that is down again and again, for half a minute.
    states = [name for name in STATES if (what, name) != ("download", "a/down")]
    secret = "hf_" + "x" * 34
    with serving(REPO, folder, Behaviour(refusals=refusals)) as endpoint:
        answers = run(endpoint, tmp_path / "home", what, *states, token=secret)
        assert run(endpoint, tmp_path / "home", "check", REPO) == [None]
    assert {repo: answer["error"] for repo, answer in zip(states, answers, strict=True)} == {
        repo: STATES[repo][1] for repo in states
    }
    for repo, answer in zip(states, answers, strict=True):
        assert answer["repo"] == repo
        assert answer.get("link", LINK + repo) == LINK + repo
        assert secret not in json.dumps(answer)


def test_signing_in_uses_the_token_for_this_process_and_keeps_it_only_when_asked(tmp_path: Path, folder: Path) -> None:
    with serving(REPO, folder, Behaviour(owners={"hf_good": "somebody"})) as endpoint:
        wrong, strange, signed_in, remembered = run(endpoint, tmp_path / "home", "sign in")
    for refused in (wrong, strange):
        assert refused["error"] == "TokenInvalid"
        assert refused["token"] is None
        assert "hf_" not in json.dumps(refused).replace("token", "")
    assert signed_in == ["somebody", "hf_good", False]
    assert remembered == ["somebody", "hf_good", True]
