"""A drill's throw-away server, as the jobs' unit lets it be: no root, and no call of chown."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from demo import postgres
from demo.processes import Account, private_directory
from opslib.areas import pg_tools, scratch
from opslib.settings import load


@contextlib.contextmanager
def became(account: Account) -> Iterator[None]:
    """That account and nobody else, until the block ends; a child has no way back."""
    if account.is_us:
        yield
        return
    group, groups = os.getgid(), os.getgroups()
    os.setgroups([])
    os.setresgid(account.gid, account.gid, 0)
    os.setresuid(account.uid, account.uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(group, group, group)
        os.setgroups(groups)


def test_it_starts_without_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's SystemCallFilter refuses it, of one's own files, too; nothing is left, and a second one starts."""

    def refused(*_: object) -> None:
        raise PermissionError("chown")

    account = Account.unprivileged()
    with private_directory() as folder:
        if not account.is_us:
            os.chown(folder, account.uid, account.gid)
        found = pg_tools.choose(18, load({}))
        tools = pg_tools.Tools(postgres._reachable(found.folder, folder, account), found.version, found.major)
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.setattr(os, "chown", refused)
        with became(account):
            for _ in range(2):
                with scratch.server(tools) as dsn, psycopg.connect(dsn) as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
                assert not list(Path(folder).glob("ops-drill-*"))
