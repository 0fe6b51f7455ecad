"""A database for an hour: on the server the settings name, or on a throw-away server of our own.

Either way it is gone afterwards, also after a kill: the next one removes what an earlier one had to leave.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from opslib.areas.dump import complaint
from opslib.areas.pg_tools import Tools, other_database
from opslib.errors import JobError, SourceError
from opslib.session import session

NAME = "ops_drill_"
START_SECONDS = 30
STOP_SECONDS = 30

INITDB = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "10",
    # A drill that is cut short is begun anew, so nothing has to survive anything.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "128MB",
    "max_locks_per_transaction": "1024",  # the restore is one transaction
}


@contextlib.contextmanager
def database(dsn: str, encoding: str) -> Iterator[str]:
    """A new, empty database on that server; dropped at the end, as are those earlier drills left.

    Raises:
        SourceError: The server refused; the login needs CREATEDB, and for a dump with several owners superuser.
    """
    name = f"{NAME}{int(time.time())}_{secrets.token_hex(4)}"
    with session(dsn, "restore-drill", seconds=300) as admin:
        for row in admin.execute(
            """SELECT datname FROM pg_database d WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)""",
            (NAME,),
        ).fetchall():
            admin.execute(_drop(row["datname"]))
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(
                sql.Identifier(name), sql.Literal(encoding)
            )
        )
    try:
        yield other_database(dsn, name)
    except BaseException:
        with contextlib.suppress(SourceError):  # why it failed is worth more; the next one drops what is left
            _dropped(dsn, name)
        raise
    _dropped(dsn, name)


def _dropped(dsn: str, name: str) -> None:
    with session(dsn, "restore-drill", seconds=300) as admin:
        admin.execute(_drop(name))


def _drop(name: str) -> sql.Composed:
    return sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))


@contextlib.contextmanager
def server(tools: Tools) -> Iterator[str]:
    """A throw-away server in a temporary folder, reachable by a unix socket in it; the DSN of its superuser.

    Raises:
        ConfigError: These tools hold no server; set RESTORE_DRILL_DATABASE_URL then.
        JobError: It does not start.
    """
    for left in Path(tempfile.gettempdir()).glob("ops-drill-*"):
        if left.stat().st_uid in {os.getuid(), _account()[0]} and not _alive(left):
            shutil.rmtree(left, ignore_errors=True)
    uid, gid = _account()
    folder = Path(tempfile.mkdtemp(prefix="ops-drill-"))
    try:
        as_account = {}
        if uid != os.getuid():  # the jobs' unit may not even call chown
            os.chown(folder, uid, gid)
            as_account = {"user": uid, "group": gid, "extra_groups": []}
        data = folder / "data"
        made = subprocess.run(  # noqa: S603 - ours
            [tools.program("initdb"), *INITDB, f"--pgdata={data}"],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            **as_account,  # type: ignore[call-overload]
        )
        if made.returncode:
            raise JobError(f"the drill's throw-away server cannot be made: {complaint(made.stderr)}")
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - ours
                [tools.program("postgres"), "-D", str(data), "-k", str(folder), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **as_account,  # type: ignore[call-overload]
            )
        try:
            yield _ready(process, make_conninfo(host=str(folder), user="postgres", dbname="postgres"), folder / "log")
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> tuple[int, int]:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.getuid():
        return os.getuid(), os.getgid()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise JobError("PostgreSQL does not run as root: run the jobs as another user, or set RESTORE_DRILL_DATABASE_URL")


def _alive(folder: Path) -> bool:
    """Does the server of an earlier drill still run there?"""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        # No server yet: young ones may be about to start one.
        return time.time() - folder.stat().st_mtime < START_SECONDS
    return True


def _ready(process: subprocess.Popen[bytes], dsn: str, log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return dsn
    raise JobError(f"the drill's throw-away server does not start: {complaint(log.read_text(errors='replace'))}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # "fast": roll back and leave
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise SourceError("the drill's throw-away server had to be killed") from None
