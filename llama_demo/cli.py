"""The command line. Errors are one line on stderr; exit status 1, or 2 for usage."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llama_demo import __version__
from llama_demo.credential_commands import (
    add_key_arguments,
    add_password_arguments,
    run_hash_password,
    run_new_key,
)
from llama_demo.errors import InvalidInput, LlamaDemoError
from llama_demo.messages import Messages, messages
from llama_demo.model_files import add_convert_arguments, add_save_arguments, run_convert, run_download, run_save
from llama_demo.observe import LOG, start_logging
from llama_demo.settings import Settings, add_arguments, options, read_settings
from llama_demo.text_arguments import (
    RUN_SETTINGS,
    add_classify_arguments,
    add_generate_arguments,
    add_score_arguments,
)

if TYPE_CHECKING:
    from llama_demo.listing import ModelSummary

USAGE_STATUS = 2
INTERRUPTED_STATUS, BROKEN_PIPE_STATUS = 130, 141
"""As shells report a program that a signal ended."""


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = messages()
    parsed = _parser(words).parse_args(arguments)
    start_logging()
    try:
        _use_cores_given()
        given = {option.name: getattr(parsed, option.name) for option in options() if hasattr(parsed, option.name)}
        settings = read_settings(given, os.environ if environment is None else environment)
        status: int = parsed.run(parsed, settings, words)
        return status
    except LlamaDemoError as error:
        print(words.error(error), file=sys.stderr)
        return USAGE_STATUS if isinstance(error, InvalidInput) else 1
    except ModuleNotFoundError as error:  # another Python than the environment's, as plain `python3` is
        print(words("cli.no_package", package=error.name, python=sys.executable), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except BrokenPipeError:  # whoever read what we print has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS
    except Exception:
        LOG.exception("unexpected error")
        print(words("cli.unexpected"), file=sys.stderr)
        return 1


def _use_cores_given() -> None:
    """Libraries that compute start as many threads as a container has time for, unless told otherwise."""
    from llama_demo.devices import core_limit

    cores = core_limit()
    if cores is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


class _Parser(argparse.ArgumentParser):
    """Its errors are one line, as all of ours, and name the command that was meant and what is nearest. A flag is
    written whole: the beginning of one may be a mistake, and must not make a page public."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_STATUS, f"{self.prog}: {message}. `{self.prog} --help` lists what there is.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = get_close_matches(unknown[0].split("=")[0], flags, n=1)
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}" + "".join(f" (did you mean {one}?)" for one in near)
            )
        return parsed, unknown


def _parser(words: Messages) -> argparse.ArgumentParser:
    installed = Path(sys.argv[0]).name == "llama-demo"
    name = "llama-demo" if installed else "python -m llama_demo"
    parser = _Parser(prog=name, description=words("cli.about"))
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, add in (
        ("serve", _serve, _add_settings),
        ("models", _models, _add_models_arguments),
        ("doctor", _doctor, _add_doctor_arguments),
        ("bench", _bench, _add_bench_arguments),
        ("convert", _convert, add_convert_arguments),
        ("download", _download, _add_download_arguments),
        ("save", _save, add_save_arguments),
        ("generate", _generate, add_generate_arguments),
        ("score", _score, add_score_arguments),
        ("classify", _classify, add_classify_arguments),
        ("new-api-key", _new_api_key, add_key_arguments),
        ("hash-password", _hash_password, add_password_arguments),
    ):
        command = commands.add_parser(name, help=words(f"cli.{name}"), description=words(f"cli.{name}"))
        command.set_defaults(run=run)
        add(command, words)
    return parser


def _add_settings(command: argparse.ArgumentParser, _: Messages) -> None:
    add_arguments(command)


def _add_models_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    command.add_argument("--json", action="store_true", help=words("cli.json"))
    add_arguments(command, RUN_SETTINGS)


def _add_doctor_arguments(command: argparse.ArgumentParser, _: Messages) -> None:
    add_arguments(command, ("cache_dir",))


def _add_download_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    command.add_argument("name", help=words("cli.download_name"))
    add_arguments(command, ("catalog",))


def _add_bench_arguments(command: argparse.ArgumentParser, words: Messages) -> None:
    command.add_argument("url", help=words("cli.bench_url"))
    command.add_argument("--api", action="store_true", help=words("cli.bench_api"))
    command.add_argument("--visitors", type=int, default=1, help=words("cli.bench_visitors"))
    command.add_argument("--rounds", type=int, default=1, help=words("cli.bench_rounds"))
    command.add_argument("--max-new-tokens", type=int, default=64, dest="tokens", help=words("cli.bench_tokens"))
    command.add_argument("--tokenizer", type=Path, help=words("cli.bench_tokenizer"))
    command.add_argument("--json", action="store_true", help=words("cli.json"))


def _serve(_: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.serve import serve

    def end(*_: object) -> None:
        raise SystemExit(0)

    def say(address: str, link: str) -> None:
        if settings.share and not settings.space and not link:
            print(words("cli.no_link"), file=sys.stderr, flush=True)
        _say(words("cli.ready_link" if link else "cli.ready", address=address, link=link))

    signal.signal(signal.SIGTERM, end)
    serve(settings, say)
    return 0


def _models(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.runtime import Runtime

    with Runtime(settings) as runtime:
        summaries = runtime.models(everything=True)
    if parsed.json:
        _say(json.dumps([summary.public() for summary in summaries], indent=2))
        return 0
    for summary in summaries:
        _say(_model_line(summary, words))
    return 0


def _model_line(summary: ModelSummary, words: Messages) -> str:
    from llama_demo.messages import size

    where = words(f"models.where_{summary.where}")
    memory = [] if summary.where == "remote" else [size(summary.bytes)]
    return "  ".join([summary.name, summary.licence, *memory, where, words.sentence(summary.good_for)])


def _doctor(_: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.doctor import examine

    findings = examine(settings)
    for finding in findings:
        mark = words("doctor.good") if finding.good else words("doctor.bad")
        _say(f"{mark}  {words(finding.key, **finding.data)}")
    return 0 if all(finding.good for finding in findings) else 1


def _bench(parsed: argparse.Namespace, _: Settings, words: Messages) -> int:
    from llama_demo.bench import BenchPlan, run

    plan = BenchPlan(
        parsed.url,
        visitors=parsed.visitors,
        rounds=parsed.rounds,
        max_new_tokens=parsed.tokens,
        protocol="openai" if parsed.api else "gradio",
        tokenizer=parsed.tokenizer,
        probe="/health",
    )
    report = run(plan)
    _say(json.dumps(report.public(), indent=2) if parsed.json else "\n".join(report.lines(words)))
    return 1 if report.failures else 0


def _convert(parsed: argparse.Namespace, _: Settings, words: Messages) -> int:
    return run_convert(parsed, words, _say)


def _save(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    return run_save(parsed, settings, words, _say)


def _download(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    return run_download(parsed, settings, words, _say)


def _generate(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.text_commands import generate

    return generate(parsed, settings, words)


def _score(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.text_commands import score

    return score(parsed, settings, words)


def _new_api_key(parsed: argparse.Namespace, _: Settings, words: Messages) -> int:
    return run_new_key(parsed, words, _say)


def _hash_password(parsed: argparse.Namespace, _: Settings, words: Messages) -> int:
    return run_hash_password(parsed, words, _say)


def _classify(parsed: argparse.Namespace, settings: Settings, words: Messages) -> int:
    from llama_demo.classify_command import run_classify

    return run_classify(parsed, settings, words)


def _say(text: str) -> None:
    print(text, flush=True)
