from __future__ import annotations

import ast
import json
import re
import string
from dataclasses import fields
from pathlib import Path

import pytest

from llama_demo import (
    api_errors,
    classify_errors,
    errors,
    file_errors,
    hub_errors,
    model_errors,
    push_errors,
    visitor_errors,
)
from llama_demo.messages import languages, messages, preferred, shortened, size
from llama_demo.reasons import Reason

PACKAGE = Path(errors.__file__).parent
ERRORS = [
    error
    for module in (
        api_errors,
        classify_errors,
        errors,
        hub_errors,
        model_errors,
        push_errors,
        visitor_errors,
        file_errors,
    )
    for error in vars(module).values()
    if isinstance(error, type) and issubclass(error, errors.LlamaDemoError) and error is not errors.LlamaDemoError
]


def table(language: str) -> dict[str, str]:
    words: dict[str, str] = json.loads((PACKAGE / "messages" / f"{language}.json").read_text(encoding="utf-8"))
    return words


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
@pytest.mark.parametrize("language", languages())
def test_every_error_has_words_that_use_only_its_data(language: str, error: type[errors.LlamaDemoError]) -> None:
    text = table(language)[f"error.{error.__name__}"]
    assert placeholders(text) <= {field.name for field in fields(error)}  # type: ignore[arg-type]


@pytest.mark.parametrize("language", languages())
def test_every_language_has_the_same_keys_and_placeholders(language: str) -> None:
    english, other = table("en"), table(language)
    assert english.keys() == other.keys()
    for key, text in english.items():
        assert placeholders(text) == placeholders(other[key]), key


def reasons() -> set[tuple[str, frozenset[str]]]:
    """Every reason that the source gives, wherever it does, with its data's names."""
    return {
        (f"reason.{ast.literal_eval(node.args[0])}", frozenset(str(keyword.arg) for keyword in node.keywords))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason"
    }


@pytest.mark.parametrize("language", languages())
def test_every_reason_has_words_that_use_its_data_and_no_words_are_without_a_reason(language: str) -> None:
    words = {(key, frozenset(placeholders(text))) for key, text in table(language).items() if key.startswith("reason.")}
    assert words == reasons()


@pytest.mark.parametrize(
    ("error", "english", "korean"),
    [
        (
            errors.BadLabels(Reason("labels.count", most=200, count=1)),
            "The labels cannot be used: there must be 2 to 200 different ones, and there are 1. Change them",
            "레이블을 쓸 수 없습니다: 서로 다른 레이블이 2~200개 있어야 하는데 1개입니다. 바꾸어 다시 보내 주세요.",
        ),
        (
            errors.BadExamples(Reason("examples.one_label", name="7")),
            "all of them have the label 7; there must be two labels or more. Mend that",
            "모두 레이블이 7입니다. 레이블은 두 가지 이상이어야 합니다. 고쳐서",
        ),
        (
            classify_errors.BadExample(Reason("example.empty"), 3),
            "Number 3 of the texts or examples cannot be used: its text is empty. Mend",
            "3번째를 쓸 수 없습니다: 글이 비어 있습니다. ",
        ),
        (
            errors.BadHead("7", Reason("head.large")),
            "7 cannot be used as a classifier: it is far too large for a head. Save",
            "7은(는) 분류기로 쓸 수 없습니다: 헤드라고 하기에는 너무 큽니다. 다시",
        ),
        (
            errors.WrongBackbone("7", Reason("backbone.width", trained=256, width=64)),
            "it was trained on features of 256 numbers, and this model's have 64. Choose",
            "숫자 256개짜리 특징으로 학습했는데, 이 모델의 특징은 64개짜리입니다. ",
        ),
        (
            errors.InvalidHistory(1, Reason("history.no_reply")),
            "this model's template leaves the reply out that is to go on. Mend",
            "이 모델의 템플릿이 이어 쓸 답을 빠뜨립니다. ",
        ),
        (
            errors.InvalidParameter("7", 77, Reason("expected.number", low="0", high="5")),
            "7 is 77, but it must be a number from 0 to 5. Change it and send again.",
            "7 값이 77인데, 0부터 5까지의 숫자여야 합니다. 바꾸어 다시 보내 주세요.",
        ),
        (
            errors.InvalidParameter("7", 2, Reason("expected.one_of", choices=("3", "4"))),
            "7 is 2, but it must be one of 3, 4. Change it and send again.",
            "7 값이 2인데, 다음 가운데 하나여야 합니다: 3, 4. 바꾸어 다시 보내 주세요.",
        ),
        (
            errors.BadJson("7", 1, 2, Reason("json.deep")),
            "7, line 1, character 2: this is no JSON object (it is nested too deep).",
            "너무 깊이 중첩되어 있습니다). ",
        ),
        (
            errors.BadCheckpoint("7", Reason("checkpoint.tokenizer_rows", tokens=3, rows=2)),
            "The model file 7 cannot be used: its tokenizer has 3 tokens and its embedding 2 rows. Download or",
            "모델 파일 7을(를) 쓸 수 없습니다: 토크나이저의 토큰은 3개인데 임베딩은 2행입니다. 다시",
        ),
        (
            errors.NotWritable("7", Reason("file.is_input")),
            "7 cannot be written: it is the input itself. Choose another place.",
            "7에 쓸 수 없습니다: 입력 파일 자체입니다. 다른 곳을 골라 주세요.",
        ),
        (
            errors.InvalidSetting("--7", 80, Reason("expected.port_above", least=1024)),
            "--7 is 80, but it must be 1024 or above where the system keeps lower ones to itself. Change the option",
            "--7 값이 80인데, 1024 이상이어야 합니다. 그보다 낮은 번호는 시스템이 내주지 않습니다. 옵션을 바꾸어",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, errors.LlamaDemoError) else "",
)
def test_a_reason_is_in_the_language_of_its_error(error: errors.LlamaDemoError, english: str, korean: str) -> None:
    assert english in messages("en").error(error)
    said = messages("ko").error(error)
    assert korean in said
    assert not re.search("[A-Za-z]", said.replace("JSON", ""))


def test_a_reason_may_stand_in_another() -> None:
    expected = Reason("expected.whole_ids", expected=Reason("expected.text_or_ids"))
    error = errors.InvalidParameter("prompt", -1, expected)
    assert (
        messages()
        .error(error)
        .startswith("prompt is -1, but it must be a text, or token ids, which are whole numbers from 0.")
    )
    assert (
        messages("ko")
        .error(error)
        .startswith("prompt 값이 -1인데, 글이나 토큰 ID여야 합니다. 토큰 ID는 0 이상의 정수입니다.")
    )


@pytest.mark.parametrize("language", languages())
def test_no_words_of_a_reason_end_with_a_full_stop(language: str) -> None:
    assert not [key for key, text in table(language).items() if key.startswith("reason.") and text.endswith(".")]


def test_the_data_of_a_reason_are_cut_and_its_words_are_not() -> None:
    said = messages().error(errors.BadLabels(Reason("labels.others", there="x" * 10_000, labels="y\n" * 10_000)))
    assert len(said) < 300
    assert "\n" not in said
    assert said.endswith("Change them and send again.")
    whole = messages().error(errors.BadLabels(Reason("labels.no_report")))
    assert "gives each text one of them, and this one does not." in whole


def test_a_reason_can_be_read_in_a_log() -> None:
    error = errors.BadLabels(Reason("labels.twice", name="a"))
    assert str(error) == "BadLabels(problem=Reason(labels.twice, name='a'))"
    assert error.problem == Reason("labels.twice", name="a")


def test_the_words_of_an_error_carry_its_numbers_in_a_persons_units() -> None:
    text = messages().error(errors.DoesNotFit("llama-2-7b", "CPU", 13_500_000_000, 4_200_000_000))
    assert "13.5 GB" in text
    assert "4.2 GB" in text


def test_a_cause_is_worded_too_and_a_foreign_one_never_shows_its_own_text() -> None:
    ours = messages().error(
        errors.LoadFailed("m", errors.BadCheckpoint("file.gguf", Reason("checkpoint.cut_meanwhile")))
    )
    assert "it was cut short while it was read" in ours
    foreign = messages().error(errors.LoadFailed("m", RuntimeError("secret /path")))
    assert "secret" not in foreign
    assert "secret" not in messages().error(RuntimeError("secret /path"))


def test_hostile_data_cannot_flood_a_message_or_break_its_line() -> None:
    text = messages().error(errors.UnknownModel("x" * 100_000 + "\n\n", "near"))
    assert len(text) < 300
    assert "\n" not in text
    assert shortened("\ud800") == "?"


def test_an_unknown_language_gets_the_default_one() -> None:
    assert messages("xx").language == "en"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        ("en-GB, ko;q=0.7", "en"),
        ("fr, de;q=0.9, ko;q=0.2", "ko"),
        ("ko;q=0, en;q=0.1", "en"),
        ("ko;q=many", "en"),
        ("", "en"),
        ("*", "en"),
        ("xx-" * 1_000_000, "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_asks_for_first_among_those_there_are(
    header: str, language: str
) -> None:
    assert preferred(header) == language


@pytest.mark.parametrize(("count", "words"), [(1_500, "2 kB"), (145_000_000, "145 MB"), (13_476_831_232, "13.5 GB")])
def test_sizes_read_as_people_write_them(count: int, words: str) -> None:
    assert size(count) == words


def test_every_key_of_the_table_is_named_in_the_source() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js"))
    built = tuple(re.findall(r"[\"']([a-z]+\.[a-z_]*)(?:\{|[\"'] \+)", source))
    spoken = {name for names in re.findall(r'data-word="(\w+)"|\b(?:words|figures)\.(\w+)', source) for name in names}
    spoken_built = tuple(re.findall(r"\bwords\[`(\w+)\$", source))

    def named(key: str) -> bool:
        name = key.partition(".")[2]
        return f'"{key}"' in source or key.startswith(built) or name in spoken or name.startswith(spoken_built)

    assert not [key for key in table("en") if not named(key)]
