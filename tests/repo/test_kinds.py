"""The whole command tree: every command says whether it changes anything, and what changes something is guarded."""

from __future__ import annotations

import re
from pathlib import Path

import click
import psycopg
import pytest

from opsctl import catalog, kinds
from opsctl.cli import cli
from opslib import postgres
from opslib.action import Action, Severity
from opslib.contract import session

ROOT = Path(__file__).parents[2]
LEAVES = dict(kinds.leaves(cli, "opsctl"))
ACTIONS = {words: kind for words, leaf in LEAVES.items() if isinstance(kind := kinds.kind_of(leaf), Action)}
DEPLOYS = {
    "opsctl contract apply",
    "opsctl contract check",
    "opsctl contract suspend",
    "opsctl contract tune",
    "opsctl migrate down",
    "opsctl migrate up",
}
"""What a deployment does as the schema's owner, outside the guard; a new one is argued here."""
SERVES = {"opsctl exporter run", "opsctl jobs run"}
"""What runs on, under a login of its own; a new one is argued here."""


@pytest.mark.parametrize("words", LEAVES)
def test_every_command_says_what_kind_it_is(words: str) -> None:
    """Nothing but the kinds there are; those outside guard and read-only are listed above by name."""
    kind = kinds.kind_of(LEAVES[words])
    if isinstance(kind, Action):
        return
    assert kind in {"reads", "deploys", "serves"}, f"{words}: say @reads or @action (opsctl/kinds.py)"
    assert (words in DEPLOYS) == (kind == "deploys"), words
    assert (words in SERVES) == (kind == "serves"), words


@pytest.mark.parametrize("words", ACTIONS)
def test_every_action_is_whole(words: str) -> None:
    """Its declaration, and the options its severity takes."""
    action, command = ACTIONS[words], LEAVES[words]
    assert re.fullmatch(r"[a-z-]+\.[a-z-]+", action.name), action.name
    assert re.fullmatch(r"OPS_[A-Z_]+", action.event), action.event
    assert action.touches
    assert (ROOT / "runbooks" / f"{action.runbook}.md").is_file(), f"{action.name}: no runbooks/{action.runbook}.md"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--reason", "--dry-run"} <= options
    assert ("--yes" in options) == (action.severity is Severity.RISKY)
    assert ("--confirm" in options) == (action.severity is Severity.DESTRUCTIVE)


def test_no_two_actions_share_a_name() -> None:
    """The audit tells them apart by it."""
    names = [action.name for action in ACTIONS.values()]
    assert sorted(names) == sorted(set(names))


def test_a_command_without_a_kind_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it got into the catalog, and however deep it lies."""

    @click.group()
    def area() -> None:
        """Hold one."""

    @area.command()
    def slip() -> None:
        """Forgot to say."""

    monkeypatch.setattr(catalog, "load", lambda _: area)
    with pytest.raises(RuntimeError, match=r"opsctl audit slip. does not say what kind"):
        cli.main(["audit", "slip"], standalone_mode=False)


def test_a_command_that_reads_cannot_write(app_database: str) -> None:
    """The server refuses it, whatever the code does; and the next command may again."""

    @kinds.reads
    def sly() -> None:
        with session.connect(app_database, "test") as connection:
            connection.execute("CREATE TABLE sly (id int)")

    for _ in range(2):
        with pytest.raises(Exception, match="read-only transaction"):
            sly()
    assert not postgres.only_reading()
    with psycopg.connect(app_database) as connection:
        assert connection.execute("SELECT to_regclass('sly')").fetchone() == (None,)
