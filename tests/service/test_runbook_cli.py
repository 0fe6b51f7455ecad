"""`opsctl runbook`, as a person types it: what there is, the plan, the questions, what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from opsctl.actions import Terminal
from opsctl.cli import cli
from opslib.areas import runbooks
from opslib.errors import ConfigError, JobError, NotFoundError, RefusedError

PAGE = """# Mend
Mend it.
## You need
- `WHAT`: to mend.
- `REASON`: why.
### 1. Look
```sh step
echo "looking at $WHAT because $REASON, postgresql://x:hunter2@host/db"
```
### 2. Hit
```sh step
echo hit >> "$WHAT"
```
### 3. Look again
```sh step
grep -c hit "$WHAT" | grep -x 2
```
"""


@pytest.fixture
def staff(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An operator with one runbook, and the thing it mends."""
    (tmp_path / "Mend.md").write_text(PAGE)
    monkeypatch.setattr(runbooks, "FOLDERS", (tmp_path,))
    name = f"op_{tmp_path.name[-8:].replace('-', '_')}"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f'CREATE ROLE "{name}" LOGIN IN ROLE ops_staff')
        monkeypatch.setenv("DATABASE_URL", make_conninfo(database, user=name))
        monkeypatch.setenv("WHAT", str(tmp_path / "thing"))
        yield name
        owner.execute(f'DROP ROLE "{name}"')


def opsctl(*words: str) -> Result:
    """Type a command."""
    return CliRunner().invoke(cli, words)


def test_a_runbook_is_walked_through(
    staff: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked before each step, stopped at a no and at a failure, gone on with --step; all of it remembered."""
    run = ("runbook", "run", "Mend", "--reason", "a test")
    (listed,) = json.loads(opsctl("runbook", "list", "--json").stdout)
    assert listed == {"name": "Mend", "steps": 3, "rehearsed_seconds": None, "title": "Mend it."}
    assert opsctl("runbook", "show", "Mend").stdout == PAGE
    dry = opsctl(*run, "--dry-run")
    assert (dry.exit_code, 'echo hit >> "$WHAT"' in dry.stderr) == (0, True)
    assert not (tmp_path / "thing").exists()
    assert isinstance(opsctl(*run).exception, RefusedError)  # nobody sits there
    answers = iter(["y", "y", "no"])
    monkeypatch.setattr(Terminal, "answers", lambda *_: next(answers))
    stopped = opsctl(*run)
    assert stopped.exit_code == 0
    assert "stopped before step 3" in stopped.stderr
    assert (tmp_path / "thing").read_text() == "hit\n"
    assert "hunter2" not in stopped.output
    failed = opsctl(*run, "--step", "3", "--yes")
    assert isinstance(failed.exception, JobError)
    assert "step 3 of Mend ended with exit code 1" in str(failed.exception)
    assert opsctl(*run, "--step", "2", "--yes").exit_code == 0
    assert opsctl(*run, "--step", "3", "--yes").exit_code == 0
    with psycopg.connect(database) as owner:
        rows = owner.execute("SELECT step, who, reason, exit_code, output FROM ops.runbook_runs ORDER BY id").fetchall()
        events = owner.execute(
            "SELECT target, outcome FROM ops.audit_events WHERE action = 'runbook.run' AND outcome <> 'intent'"
            " ORDER BY seq"
        ).fetchall()
    assert [(row[0], row[3]) for row in rows] == [(1, 0), (2, 0), (3, 1), (2, 0), (3, 0)]
    assert {row[1:3] for row in rows} == {(staff, "a test")}
    assert rows[0][4].startswith(f"looking at {tmp_path}/thing because a test, ")
    assert "hunter2" not in rows[0][4]
    assert [outcome for _, outcome in events] == ["refused", "allowed", "allowed", "failed", "allowed", "allowed"]
    assert events[3][0] == "Mend step 3"


def test_what_keeps_it_from_running(staff: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is missing, a step that is not there, a login that is nobody's: each by name."""
    run = ("runbook", "run", "Mend", "--reason", "a test", "--yes")
    assert isinstance(opsctl(*run, "--step", "9").exception, NotFoundError)
    monkeypatch.delenv("WHAT")
    assert "needs WHAT in" in str(opsctl(*run).exception)
    assert isinstance(opsctl(*run).exception, ConfigError)
    monkeypatch.setenv("WHAT", "x")
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f'REVOKE ops_staff FROM "{staff}"')
        assert isinstance(opsctl(*run).exception, RefusedError)
        with psycopg.connect(make_conninfo(database, user=staff)) as nobody, pytest.raises(psycopg.Error):
            nobody.execute("SELECT ops.runbook_begin('Mend', 1, 'x', 'y')")
        count = owner.execute("SELECT count(*) FROM ops.runbook_runs").fetchone()
    assert count == (0,)
