"""A runbook is read strictly, and every page of ours can be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from opslib.areas import runbooks
from opslib.errors import ConfigError, NotFoundError

PAGE = """# Page
Why it is there.
## You need
- `ONE`: the first.
- `TWO`: the second, which tells `THREE`.
## Before
```sh before
by hand
```
## Steps
### 1. Look
```sh step
echo one
echo two
```
Last rehearsal: 1.5 s.
### 2. Think
```sh
never run
### 7. no heading
```
### 3. Act
```sh step
false
echo not reached
```
- `FOUR`: is no need.
"""


def test_a_page_is_understood() -> None:
    """What it needs, what is typed by hand, what each step runs; other blocks are for reading."""
    book = runbooks.parse("Page", PAGE)
    assert (book.title, book.needs, book.before) == ("Why it is there.", ("ONE", "TWO"), ("by hand",))
    assert [(step.title, step.script, step.rehearsed) for step in book.steps] == [
        ("Look", "echo one\necho two", 1.5),
        ("Think", "", None),
        ("Act", "false\necho not reached", None),
    ]
    assert book.missing({"ONE": "1", "TWO": ""}) == ["TWO"]
    assert [step.number for step in book.chosen(None)] == [1, 3]
    assert [step.number for step in book.chosen(3)] == [3]
    for number in (2, 4):
        with pytest.raises(NotFoundError, match=f"no step {number} to run"):
            book.chosen(number)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("### 2. Late\n", "step 2 stands where 1 is expected"),
        ("```sh step\nls\n```\n", "P.md:3: a step has one block"),
        ("### 1. Twice\n```sh step\nls\n```\n```sh step\nls\n```\n", "P.md:7: a step has one block"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """Steps that could be run in another order than they are read."""
    with pytest.raises(ConfigError, match=message):
        runbooks.parse("P", text)


def test_a_step_stops_at_the_first_failure() -> None:
    """As it is printed, standard error included; what follows a failure is not run."""
    said: list[str] = []
    book = runbooks.parse("Page", PAGE)
    assert runbooks.execute(book.steps[0].script, os.environ, said.append) == (0, "one\ntwo\n")
    assert said == ["one", "two"]
    assert runbooks.execute(book.steps[2].script, os.environ, said.append) == (1, "")
    assert runbooks.execute("false | true; echo on", os.environ, said.append) == (1, "")
    code, output = runbooks.execute("echo $UNSET", {"PATH": os.environ["PATH"]}, said.append)
    assert code != 0
    assert "UNSET: unbound variable" in output


@pytest.mark.parametrize("name", runbooks.names())
def test_every_page_of_ours(name: str) -> None:
    """It can be read, its steps are bash, and what can be run says what it needs."""
    book = runbooks.read(name)
    for script in (*book.before, *(step.script for step in book.steps)):
        subprocess.run(["bash", "-n", "-c", script], check=True, capture_output=True)
    if book.steps:
        assert book.needs
        assert book.title


def test_there_is_no_such_page() -> None:
    """Nor one outside the folder."""
    for name in ("Nothing", "../README"):
        with pytest.raises(NotFoundError, match="opsctl runbook list"):
            runbooks.read(name)


def test_nobodys_bashrc_is_run_first(tmp_path: Path) -> None:
    """Over SSH bash reads it even for a single command; at night it must be the page's commands and no others."""
    (tmp_path / ".bashrc").write_text("echo from bashrc\n")
    environment = {"HOME": str(tmp_path), "SSH_CLIENT": "192.0.2.1 1 22", "PATH": os.environ["PATH"]}
    for _ in range(2):
        assert runbooks.execute("echo step", environment, lambda _: None) == (0, "step\n")
