"""`opsctl.generate --check` notices every way in which a generated file can be wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from opsctl import generate

WANTED = generate.files()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The generated files alone, all current and tracked, in a checkout of their own."""
    for path, text in WANTED.items():
        target = tmp_path / path.relative_to(generate.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    """In that checkout."""
    program = shutil.which("git")
    assert program
    subprocess.run([program, "-C", str(folder), *arguments], check=True)


def names(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `--check` complains about; nothing and exit code 0, or something and 1."""
    code = generate.main(["--check"])
    lines = capsys.readouterr().err.splitlines()
    assert code == bool(lines)
    return lines


def test_all_is_well(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As they are made, nothing is wrong with them."""
    assert copy.exists()
    assert names(capsys) == []


def test_each_edited_by_hand_turns_red(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One character in each of them; of a runbook, in its head. `make generate` mends them."""
    every = [str(path.relative_to(copy)) for path in generate.files()]
    for name in every:
        path = copy / name
        text = _head(path) if name.startswith("runbooks/") else path.read_text("utf-8").replace("e", "E", 1)
        path.write_text(text, "utf-8")
    assert names(capsys) == [f"{name} is stale: run `make generate`" for name in every]
    assert generate.main([]) == 0
    capsys.readouterr()
    assert names(capsys) == []


def _head(path: Path) -> str:
    return path.read_text("utf-8").replace("<!-- generated: severity ", "<!-- generated: severity x", 1)


@pytest.mark.parametrize("name", ["prometheus/rules/gone.yml", "grafana/dashboards/gone.json", "runbooks/Gone.md"])
def test_what_nothing_generates_any_more(copy: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A subject, a board, an alert that is no more leaves nothing behind."""
    (copy / name).write_text("# Gone\n<!-- generated: severity page -->\n", "utf-8")
    assert names(capsys) == [f"{name} is orphaned, nothing generates it any more: remove it"]


def test_what_is_on_this_machine_alone(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Current, and never added."""
    git(copy, "rm", "--quiet", "--cached", "docs/alerts.md")
    assert names(capsys) == ["docs/alerts.md is not tracked: `git add` it"]


def test_a_new_alert_begins_with_an_empty_runbook(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its head and five headings, which tests/repo/test_runbooks.py then wants filled."""
    path = copy / "runbooks/QueueStuck.md"
    path.unlink()
    assert names(capsys) == ["runbooks/QueueStuck.md is stale: run `make generate`"]
    assert generate.main([]) == 0
    assert path.read_text("utf-8").count("\n## ") == 5
