"""Runbooks: every alert has one, whole, and every command in any of them is one `opsctl` takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from opsctl import catalog
from opsctl.cli import cli
from opsctl.render.alerts import SECTIONS

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "runbooks").glob("*.md"))}
ALERTS = [alert.name for subject in catalog.watched() for alert in subject.alerts]

STANDS_FOR = {"RUN": "17", "SEQ": "17", "TEXT": "reason~timeout", "JSON": "{}"}
"""What a word in capitals is, where a name would not be taken."""


def commands(text: str) -> list[str]:
    """Every `opsctl …` in a page: in a line of a fenced block, or between backticks."""
    fenced = re.findall(r"^```.*?$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    found = [line for line in lines if line.startswith("opsctl ")]
    spans = re.findall(r"`(opsctl [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return found + spans


def parse(line: str) -> None:
    """Have click parse a command as far as its own function, which is not called.

    Raises:
        click.UsageError: There is no such command, or it does not take that.
    """
    words = shlex.split(re.split(r" (?:\|\|?|&&) ", line, maxsplit=1)[0], comments=True)[1:]
    words = [STANDS_FOR.get(word, word) for word in words if word not in {">", "&"} and not word.startswith("2>")]
    command: click.Command = cli
    context = click.Context(cli, info_name="opsctl")
    while isinstance(command, click.Group):
        if not words:
            return  # a group names its commands
        name, child, words = command.resolve_command(context, words)
        assert child is not None, f"{line}: no such command"
        command = child
        if "--help" in words or (not words and not isinstance(command, click.Group)):
            return  # its name alone, in a sentence
        if not isinstance(command, click.Group):
            command.make_context(name, list(words), parent=context)
            return
        context = click.Context(command, info_name=name, parent=context)


LINES = sorted({(page, line) for page, path in PAGES.items() for line in commands(path.read_text("utf-8"))})


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: value[:60])
def test_a_command_is_one_there_is(page: str, line: str) -> None:
    """What somebody pastes at night must at least be taken."""
    # The prose of a procedure may name a command by its first words; its steps are fenced, and whole.
    prose = page not in ALERTS and f"`{line}`" in PAGES[page].read_text("utf-8")
    try:
        parse(line)
    except click.UsageError as exc:
        if not (prose and isinstance(exc, click.MissingParameter)):
            pytest.fail(f"runbooks/{page}.md: {line}: {exc.format_message()}")


def test_a_wrong_command_would_be_noticed() -> None:
    """The parser is the real one: a command, an option, an argument it does not know."""
    for line in (
        "opsctl ordres list",
        "opsctl orders list --stauts paid",
        "opsctl orders show --json",
        "opsctl flags set a no",
    ):
        with pytest.raises(click.UsageError):
            parse(line)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_runbook(name: str) -> None:
    """Five sections, in order, none empty; numbered steps; a first command to run."""
    text = PAGES[name].read_text("utf-8")
    assert text.startswith(f"# {name}\n<!-- generated: ")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == SECTIONS
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert all(body.strip() for body in sections.values()), "a section is empty"
    for section in ("Diagnosis", "Mitigation"):
        numbers = re.findall(r"^(\d+)\. ", sections[section], re.MULTILINE)
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)], section
        assert numbers, f"{section}: numbered steps"
    assert commands(text), "a command to begin with"


def test_no_runbook_is_left_over() -> None:
    """A page with an alert's head and no alert is one nobody is sent to."""
    headed = {name for name, path in PAGES.items() if "<!-- generated: " in path.read_text("utf-8")}
    assert headed == set(ALERTS)
