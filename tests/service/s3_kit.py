"""What the tests of jobs that use the object store share: its settings, a role's own login, runs in the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from opslib import settings
from opslib.storage import Place, Storage

LOGIN = "a_job"


def env_at(place: Place) -> dict[str, str]:
    """The settings of that bucket."""
    return {
        "R2_ENDPOINT": place.endpoint,
        "R2_BUCKET": place.bucket,
        "R2_ACCESS_KEY_ID": place.access_key_id.get_secret_value(),
        "R2_SECRET_ACCESS_KEY": place.secret_access_key.get_secret_value(),
    }


def place_of(env: dict[str, str]) -> Place:
    """The bucket of those settings."""
    return Storage.of(settings.load(env)).place


def as_job(database: str) -> str:
    """The database as a job logs in: a member of `ops_jobs` and nothing else."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            f"DO $$ BEGIN CREATE ROLE {LOGIN} LOGIN IN ROLE ops_jobs; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    return make_conninfo(database, user=LOGIN)


def a_finished_run(
    owner: psycopg.Connection[Any], job: str, result: dict[str, Any] | None = None, **columns: Any
) -> None:
    """A run in the history that succeeded just now, or as `columns` say."""
    now = datetime.now(UTC)
    given = {"outcome": "SUCCESS", "finished_at": now, "queued_at": now, "result": Jsonb(result or {})}
    _run(owner, job, {**given, **columns})


def a_running_run(owner: psycopg.Connection[Any], job: str) -> None:
    """A run in the history that began an hour ago."""
    began = datetime.now(UTC) - timedelta(hours=1)
    _run(owner, job, {"queued_at": began, "started_at": began})


def _run(owner: psycopg.Connection[Any], job: str, columns: dict[str, Any]) -> None:
    needed = owner.execute(
        """SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE a.attrelid = 'ops.job_runs'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
             AND d.adbin IS NULL AND a.attidentity = ''"""
    ).fetchall()
    plain: dict[str, Any] = {
        "text": "x",
        "timestamp with time zone": datetime.now(UTC),
        "integer": 0,
        "bigint": 0,
        "jsonb": "{}",
        "double precision": 1,
        "interval": timedelta(1),
        "boolean": False,
    }
    values = {**{name: plain[kind] for name, kind in needed}, "job": job, **columns}
    owner.execute(
        f"INSERT INTO ops.job_runs ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
        list(values.values()),
    )
