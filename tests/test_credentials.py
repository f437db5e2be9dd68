from __future__ import annotations

import io
from pathlib import Path

import pytest

from llama_demo.api_errors import BadCredentialFile
from llama_demo.cli import main
from llama_demo.credentials import ApiKeys, Users, new_key, password_line
from llama_demo.errors import InvalidParameter
from tests.ports import free_port


def test_a_key_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    key, line = new_key("the reading group")
    other, _ = new_key("")
    file = tmp_path / "keys"
    file.write_text(f"# given out in November\n\n{line}\n")
    assert key not in file.read_text()
    keys = ApiKeys(file)
    assert keys.check(key) is not None
    assert keys.check(key) == keys.check(key)
    for wrong in (other, "", key[:-1], line, "sha256$" + "0" * 64, "\ud800"):
        assert keys.check(wrong) is None


def test_a_password_is_known_by_its_name_and_hash(tmp_path: Path) -> None:
    file = tmp_path / "users"
    lines = [password_line("김민지", "correct horse"), password_line("ann", "a:b c")]
    assert "correct horse" not in lines[0]
    assert lines[1] != password_line("ann", "a:b c")
    file.write_text("\n".join(lines), encoding="utf-8")
    users = Users(file)
    assert users.check("김민지", "correct horse")
    assert users.check("ann", "a:b c")
    assert users.check("ann", "a:b c")
    for name, password in (("ann", "correct horse"), ("ann", ""), ("nobody", "a:b c"), ("", "")):
        assert not users.check(name, password)


@pytest.mark.parametrize("text", ["plain-key\n", "# fine\nsha256$123\n", "ann:password\n"])
def test_a_line_that_is_no_hash_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    for kind in (ApiKeys, Users):
        with pytest.raises(BadCredentialFile) as caught:
            kind(file)
        assert caught.value.line == text.count("\n")
    with pytest.raises(BadCredentialFile):
        ApiKeys(tmp_path / "absent")


@pytest.mark.parametrize("name", ["", "two words", "a:b"])
def test_a_name_that_cannot_stand_in_the_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter):
        password_line(name, "x")


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="password"):
        password_line("ann", "")


def test_the_commands_print_lines_for_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["new-api-key", "reading group"], {}) == 0
    made = capsys.readouterr()
    (tmp_path / "keys").write_text(made.out)
    key = next(word for word in made.err.split() if word.startswith("sk-"))
    assert ApiKeys(tmp_path / "keys").check(key)
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert main(["hash-password", "ann"], {}) == 0
    (tmp_path / "users").write_text(capsys.readouterr().out)
    assert Users(tmp_path / "users").check("ann", "secret")
    assert main(["serve", "--port", str(free_port()), "--api-keys", str(tmp_path / "users")], {}) == 2
    assert "line 1" in capsys.readouterr().err
