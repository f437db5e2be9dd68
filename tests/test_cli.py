from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llama_demo import cli, devices, doctor, serve
from llama_demo.catalog import EMBEDDED
from llama_demo.messages import messages
from tests.ports import free_port


def test_a_wrong_option_is_one_line_on_stderr_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", "http"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("--port is http, but it must be a whole number")
    assert err.count("\n") == 1


def test_an_unknown_model_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", str(free_port()), "--model", "smollm2"]) == 2
    assert EMBEDDED.name in capsys.readouterr().err


def test_a_busy_port_is_said_and_nothing_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
    err = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is in use" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_no_port_in_use(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--host", host, "--port", str(free_port())]) == 2
    assert capsys.readouterr().err.startswith(f"--host is {host}, but it must be an address of this machine")


def test_a_port_that_the_system_keeps_to_itself_is_no_port_in_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert cli.main(["serve", "--port", "80"]) == 2
    assert capsys.readouterr().err.startswith("--port is 80, but it must be 1024 or above")


@pytest.mark.parametrize(
    ("share", "link", "said"),
    [
        ("on", "", ("The page is at http://here", "The public link could not be made")),
        ("on", "https://link", ("https://link for everybody who has the link, for up to a week", "")),
        ("off", "", ("The page is at http://here", "")),
    ],
)
def test_a_public_link_that_could_not_be_made_is_explained_and_the_page_is_served_here(
    share: str, link: str, said: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "serve", lambda _, ready: ready("http://here", link))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.main(["serve", "--share", share]) == 0
    out, err = capsys.readouterr()
    assert said[0] in out
    assert err.startswith(said[1])
    assert bool(err) == bool(said[1])


def test_models_lists_what_there_is_and_whether_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json", "--memory-gb", "4"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    entry = entries[EMBEDDED.name]
    assert entries["llama-2-70b-hf"]["fits"] is False
    assert entry["state"] == "absent"
    assert entry["fits"] is True
    assert cli.main(["models", "--memory-gb", "24"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "needs access" in lines["llama-2-7b-chat-hf"]
    assert "runs here, after a download" in lines["tinyllama-1.1b-chat"]
    assert "too large here" in lines["llama-2-70b-chat-hf"]


def test_doctor_finds_nothing_wrong_where_everything_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "the embedded model is installed" in out
    assert "FAIL" not in out


def test_doctor_names_a_missing_package_and_what_to_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("gradio", "no-such-package"))
    assert cli.main(["doctor"]) == 1
    assert "no-such-package is missing: run `pip install -r requirements.txt`" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["serve", "models", "doctor", "bench", "convert", "download", "save", "generate", "score", "classify"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_bench_refuses_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "http://example.com"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unexpected_error_is_logged_and_then_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: object) -> list[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "examine", broken)
    assert cli.main(["doctor"]) == 1
    logged = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in logged
    assert logged[-1] == messages()("cli.unexpected")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["convert", "a", "b"], "required: --to"),
        (["serve", "--prot", "7861"], "--prot 7861 (did you mean --port?)"),
        (["serve", "--prot=7861"], "--prot=7861 (did you mean --port?)"),
        (["generate", "Once", "upon"], "unrecognized arguments: upon"),
        (["bench", "http://127.0.0.1", "--visitors", "two"], "--visitors: invalid int value: 'two'"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_command_whose_help_to_read(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert f"`python -m llama_demo {' '.join(arguments[:1])}".rstrip() + " --help`" in err
    assert err.count("\n") == 1


def test_the_beginning_of_a_flag_is_no_flag_so_that_a_mistake_shares_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "serve", lambda *_: pytest.fail("it was started"))
    with pytest.raises(SystemExit):
        cli.main(["serve", "--shar"])
    assert "did you mean --share?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["models", "doctor", "download", "save"])
def test_a_command_that_serves_nobody_offers_no_settings_of_the_server(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert "--port" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["doctor"], ["generate", "Once"], ["serve"]])
def test_a_python_without_the_packages_is_named_with_the_one_to_use(command: list[str]) -> None:
    root = Path(cli.__file__).parent.parent
    bare = [sys.executable, "-S", "-m", "llama_demo", *command]
    done = subprocess.run(bare, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{sys.executable} has no package ")
    assert ".venv/bin/python" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_line_imports_nothing_heavy_before_it_needs_to() -> None:
    program = "import sys, llama_demo.cli; print(sorted({'gradio', 'torch', 'openvino', 'numpy'} & set(sys.modules)))"
    root = Path(cli.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("given", "threads"), [(None, "2"), ("7", "7")])
def test_libraries_start_as_many_threads_as_a_container_has_time_for_unless_told(
    given: str | None, threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "core_limit", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    assert cli.main(["models"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == threads
