"""What the tests of runs share: jobs declared and worked on by the engine's own functions, as a worker would."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from opslib.areas import runs

SILENT = timedelta(minutes=5)


class Engine:
    """A scheduler and a worker without a clock or a process.

    Args:
        connection: To a database with schema `ops`, as its owner; autocommit.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.worker = self._call("job_worker_start", "node-1", Jsonb({"default": 2}), "t")

    def _call(self, function: str, *arguments: Any) -> Any:
        places = ", ".join(["%s"] * len(arguments))
        row = self.connection.execute(f"SELECT ops.{function}({places}) AS value", arguments).fetchone()
        assert row is not None
        return row["value"] if isinstance(row, dict) else row[0]

    def declare(self, *jobs: str, **but: Any) -> None:
        """These jobs, and no others."""
        shape: dict[str, Any] = {
            "title": "a job",
            "queue": "default",
            "schedule": "0 2 * * *",
            "timeout_seconds": 60,
            "max_age_seconds": 90_000,
            "retries": 0,
            "retry_seconds": 2,
            "catch_up": "latest",
            "missing": [],
        }
        self._call("job_declare", Jsonb([{"job": job, **shape, **but} for job in jobs]), "test", "true")

    def enqueue(self, job: str, by: str = "anna") -> int:
        """Queue a run."""
        return runs.enqueue(self.connection, job, triggered_by=by)

    def take(self, silent_after: timedelta = SILENT) -> int:
        """Begin an attempt at whatever is first; its token."""
        row = self.connection.execute(
            "SELECT attempt FROM ops.job_take(%s, ARRAY['default'], %s)", (self.worker, silent_after)
        ).fetchone()
        assert row is not None
        token = row["attempt"] if isinstance(row, dict) else row[0]
        assert token is not None, "nothing to take"
        return int(token)

    def finish(self, attempt: int, outcome: str = "SUCCESS", error: str | None = None) -> str | None:
        """Say how an attempt ended; None: refused."""
        answer: str | None = self._call("job_finish", attempt, outcome, Jsonb({"deleted": 1}), error)
        return answer

    def progress(self, attempt: int, **told: Any) -> None:
        """Say how far it is."""
        self._call("job_progress", attempt, Jsonb(told))

    def ran(self, job: str, outcome: str = "SUCCESS", by: str = "schedule") -> int:
        """A whole run, at once."""
        run = self.enqueue(job, by)
        assert self.finish(self.take(), outcome, "no" if outcome == "FAILED" else None) == outcome
        return run
