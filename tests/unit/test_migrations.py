"""Migration files are read strictly: a wrong name, gap or missing half is refused before any database is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opslib.contract import migrate
from opslib.errors import MigrationError


def write(folder: Path, *names: str) -> None:
    """Empty migration files."""
    for name in names:
        (folder / name).write_text("SELECT 1;\n")


def test_ours_load_in_order() -> None:
    """Our own files are a whole series from 0001."""
    steps = migrate.load()
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert steps[0].file == "0001_exporters.up.sql"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0001_a.up.sql"], "one is missing"),
        (["0001_a.up.sql", "0001_b.down.sql"], "one is missing"),
        (["0001_a.up.sql", "0001_a.down.sql", "0003_c.up.sql", "0003_c.down.sql"], "without gaps"),
        (["0001_a.up.sql", "0001_a.down.sql", "0001_b.up.sql", "0001_b.down.sql"], "doubles"),
        (["1_a.up.sql"], "name it NNNN"),
        (["0001_a.sql"], "name it NNNN"),
    ],
)
def test_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """Each way to get the files wrong has its own message."""
    write(tmp_path, *names)
    with pytest.raises(MigrationError, match=message):
        migrate.load(tmp_path)


def test_checksum_ignores_line_ends() -> None:
    """A checkout with other line ends is no edit; another character is one."""
    step = migrate.load()[0]
    assert replace(step, up=step.up.replace("\n", "\r\n")).checksum == step.checksum
    assert replace(step, up=step.up + " ").checksum != step.checksum
