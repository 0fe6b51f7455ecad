"""The embedded stack as one: Postgres, Redis, S3, our schema and views in place, and the exporter as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import yaml

from demo import app_schema
from demo.postgres import PostgresServer, postgres
from demo.processes import Account, Server, StartError, free_port, private_directory
from demo.redis import RedisServer, redis_server
from demo.s3 import S3Server, s3_server

DATABASE = "bitloot"
BUCKET = "bitloot"
LOGIN = "demo_exporter"
"""What the exporters log in as: a member of `ops_exporter`, no owner of anything."""
JOBS_LOGIN = "demo_jobs"
"""What the jobs log in as: a member of `ops_jobs`."""
BACKUP_LOGIN = "demo_backup"
"""What reads everything: a member of `ops_backup`."""
OPERATOR = "demo_operator"
"""Who acts: a member of `ops_staff`."""
VISITOR = "demo_super"
"""Whoever looks at the demo from another terminal: a member of `ops_super`."""

KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
"""Of our own environment, what a process needs to live."""

OPSCTL = (sys.executable, "-m", "opsctl.cli")
ROOT = Path(__file__).parents[1]

LEDGER = {
    "OPS_LEDGER_SETTLE_SECONDS": "6",
    "OPS_LEDGER_REFRESH_SECONDS": "2",
    "OPS_LEDGER_GAUGES_SECONDS": "5",
}
"""A shop in a hurry: in production an undecided notification settles after a minute."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The servers, all running.

    Attributes:
        directory: For logs and data, gone at the end.
    """

    directory: Path
    postgres: PostgresServer
    redis: RedisServer
    s3: S3Server

    @property
    def dsn(self) -> str:
        """The database of the application, as its owner."""
        return self.postgres.dsn(DATABASE)

    @property
    def bucket(self) -> dict[str, str]:
        """The settings of the bucket."""
        return {
            "R2_ENDPOINT": self.s3.endpoint,
            "R2_BUCKET": BUCKET,
            "R2_ACCESS_KEY_ID": self.s3.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.s3.secret_access_key,
        }


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Start all servers and lay out the database.

    Raises:
        StartError: A server did not start, or `opsctl` could not migrate.
    """
    with (
        private_directory() as directory,
        private_directory() as data,
        postgres(data) as database,
        redis_server(directory) as redis,
        s3_server(directory, (BUCKET,)) as s3,
    ):
        with database.connect() as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        here = Stack(directory, database, redis, s3)
        app_schema.create(here.dsn)
        opsctl("migrate", "up", DATABASE_URL=here.dsn)
        opsctl("contract", "apply", DATABASE_URL=here.dsn)
        with database.connect() as admin:
            for login, roles in (
                (LOGIN, "ops_exporter"),
                (JOBS_LOGIN, "ops_jobs"),
                (BACKUP_LOGIN, "ops_backup"),
                (OPERATOR, "ops_staff"),
                (VISITOR, "ops_super, ops_jobs"),
            ):
                admin.execute(f"CREATE ROLE {login} LOGIN IN ROLE {roles}")
        yield here


def opsctl(*arguments: str, **settings: str) -> str:
    """Run a command of ours with these settings and no others; what it printed.

    Raises:
        StartError: It failed.
    """
    command = [*OPSCTL, *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(settings), cwd=ROOT)
    if result.returncode:
        raise StartError(f"`opsctl {' '.join(arguments)}` failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings and `KEPT`. Nothing else of our own environment: it may be set up for the real shop."""
    return {**{name: os.environ[name] for name in KEPT if name in os.environ}, **settings}


class Exporter(Server):
    """`opsctl exporter run` as a process.

    Args:
        directory: For its log.
        settings: Its environment.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        super().__init__(
            "the exporter",
            [*OPSCTL, "exporter", "run", "--listen", f"127.0.0.1:{self.port}"],
            log=directory / "exporter.log",
            ready=lambda: self.get("/healthz")[0] == HTTPStatus.OK,
            account=Account.ours(),
            env=environment(settings),
            cwd=ROOT,
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages.

        Raises:
            OSError: It does not answer.
        """
        return _get(self.port, path)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)  # never through a proxy
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def prometheus_server(directory: Path, exporter: Exporter) -> Server | None:
    """A Prometheus on the generated configuration and rules, not started yet; None where none is installed."""
    program = shutil.which("prometheus")
    if program is None:
        return None
    port = free_port()
    content = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text("utf-8"))
    content["rule_files"] = [str(ROOT / "prometheus" / "rules" / "*.yml")]
    content["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter.port}"]
    del content["alerting"]  # its page of alerts says what fires; the demo calls nobody
    configuration = directory / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(content), "utf-8")

    return Server(
        f"Prometheus on http://127.0.0.1:{port}",
        [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        log=directory / "prometheus.log",
        ready=lambda: _get(port, "/-/ready")[0] == HTTPStatus.OK,
        account=Account.ours(),
    )
