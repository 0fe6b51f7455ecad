"""A restore for good: into which database, and what must be settled in it before anybody works with it.

The target's name is all that is given; server and login are RESTORE_DATABASE_URL's. The databases we are working with
right now are no target: restore beside them, look, then rename.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from opslib import audit, audit_chain, audit_store
from opslib.areas.pg_tools import other_database
from opslib.audit import Event, Head, Outcome
from opslib.errors import OpsError, RefusedError
from opslib.session import session
from opslib.settings import Settings
from opslib.storage import Storage

WHY = "restored"
"""The error of runs that were queued or running when the backup was taken."""

_OBJECTS = """
SELECT count(*) AS objects FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' ORDER BY nspname
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a restore goes.

    Attributes:
        name: The database.
        dsn: Its DSN.
        exists: Is it there?
        objects: Tables, indexes, views and sequences in it.
        schemas: Its schemas.
    """

    name: str
    dsn: str
    exists: bool
    objects: int
    schemas: tuple[str, ...]

    def create(self, admin_dsn: str, encoding: str) -> None:
        """Make it, empty.

        Raises:
            SourceError: The server refused.
        """
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}")
        with session(admin_dsn, "restore", seconds=300) as admin:
            admin.execute(statement.format(sql.Identifier(self.name), sql.Literal(encoding)))

    def cleared(self) -> Iterator[bytes]:
        """SQL that empties it: put before the dump it is part of the one transaction, undone if the dump fails."""
        for schema in self.schemas:
            yield (sql.SQL("DROP SCHEMA {} CASCADE;\n").format(sql.Identifier(schema))).as_string().encode()
        yield b"CREATE SCHEMA public AUTHORIZATION pg_database_owner;\nGRANT USAGE ON SCHEMA public TO PUBLIC;\n"


def look(settings: Settings, name: str) -> Target:
    """The target of that name.

    Raises:
        ConfigError: RESTORE_DATABASE_URL is not set.
        RefusedError: It is a database the settings work with, or one of the server's own.
        SourceError: The server cannot be asked.
    """
    admin = settings.reveal("RESTORE_DATABASE_URL")
    for live in (settings.database_url, settings.ops_database_url, settings.backup_database_url):
        if live is not None and conninfo_to_dict(live.get_secret_value()).get("dbname") == name:
            raise RefusedError(
                f"{name} is in use by these settings: restore into another database beside it, compare, then rename "
                "(docs/backups.md)"
            )
    with session(admin, "restore") as connection:
        found = connection.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if name == "postgres" or (found and found["datistemplate"]):
        raise RefusedError(f"{name} is the server's own, whatever it holds: choose another name, it will be created")
    dsn = other_database(admin, name)
    if found is None:
        return Target(name, dsn, exists=False, objects=0, schemas=())
    with session(dsn, "restore") as connection:
        row = connection.execute(_OBJECTS).fetchone()
        schemas = tuple(one["nspname"] for one in connection.execute(_SCHEMAS))
    return Target(name, dsn, exists=True, objects=row["objects"] if row else 0, schemas=schemas)


@dataclass(frozen=True, slots=True)
class Settled:
    """What was done in a restored database.

    Attributes:
        runs: Runs cancelled.
        head: The audit's end, with the event that tells of the restore; None: there is no audit in it.
        anchored: The last head noted outside before; None: none is.
        findings: What is wrong with the restored audit.
    """

    runs: int
    head: Head | None
    anchored: Head | None
    findings: tuple[str, ...]


def settle(target: str, storage: Storage, key: str, reason: str) -> Settled:
    """End the runs that the backup caught under way, and write the restore into the restored audit.

    Raises:
        OpsError: The database or the bucket failed.
    """
    with session(target, "restore") as connection:
        row = connection.execute(
            "SELECT to_regclass('ops.job_runs') IS NOT NULL AS jobs,"
            " to_regclass('ops.audit_events') IS NOT NULL AS audit"
        ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM
    runs = _cancelled(target) if row["jobs"] else 0
    if not row["audit"]:
        return Settled(runs, None, None, ())
    noted = audit_store.noted(storage)
    anchored = max(noted, key=lambda head: head.at, default=None)
    report = audit_chain.verify(target, noted)
    findings = tuple(report.damage)
    with audit.connect(target) as connection:
        if report.unexplained and not findings:
            try:
                audit_store.accept(connection, report, f"{reason} (restored from {key})")
            except OpsError as exc:
                findings = (str(exc),)
        named = {"anchored_events": anchored.seq, "anchored_hash": anchored.hash.hex()} if anchored else {}
        payload = {"key": key, **named}
        event = Event("OPS_BACKUP_RESTORED", "backups.restored", key, payload, reason)
        head = audit.append(
            connection, event, Outcome.FAILED if findings else Outcome.ALLOWED, error="; ".join(findings)
        )
    return Settled(runs, head, anchored, findings)


def _cancelled(target: str) -> int:
    with session(target, "restore") as connection, connection.transaction():
        unfinished = connection.execute(
            "SELECT id, delivery, attempt FROM ops.job_runs WHERE outcome IS NULL FOR UPDATE"
        ).fetchall()
        connection.execute(
            "DELETE FROM ops.procrastinate_jobs WHERE id = ANY (%s)", ([row["delivery"] for row in unfinished],)
        )
        connection.execute(
            """UPDATE ops.job_attempts
               SET finished_at = clock_timestamp(), outcome = 'CANCELLED', lost = true, error = %s
               WHERE attempt = ANY (%s) AND finished_at IS NULL""",
            (WHY, [row["attempt"] for row in unfinished]),
        )
        connection.execute(
            "SELECT ops.job_end(r, 'CANCELLED', NULL, %s) FROM ops.job_runs r WHERE r.id = ANY (%s)",
            (WHY, [row["id"] for row in unfinished]),
        )
    return len(unfinished)
