"""`opsctl doctor` against servers as they should be, and each as it should not."""

from __future__ import annotations

import json

import psycopg
import pytest
import redis as redis_py
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

from opsctl.cli import cli
from opslib.errors import ConfigError


def examined(code: int) -> dict[str, tuple[str, str]]:
    """State and words of each part."""
    ended = CliRunner().invoke(cli, ["doctor", "--json"])
    assert ended.exit_code == code, ended.output
    return {row["part"]: (row["state"], row["says"]) for row in json.loads(ended.stdout)}


@pytest.fixture
def settings(database: str, redis: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A database and a Redis as they should be."""
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", redis)
    with redis_py.Redis.from_url(redis) as client:
        client.config_set("maxmemory-policy", "noeviction")
    return monkeypatch


@pytest.mark.usefixtures("settings")
def test_what_is_well_is_ok_and_the_rest_not_set(settings: pytest.MonkeyPatch, database: str) -> None:
    """Exit code 0, for the owner and for staff; what has no settings is no fault."""
    owner = examined(0)
    assert {part for part, (state, _) in owner.items() if state == "ok"} == {
        *("application's database", "schema ops", "operator", "queues"),
    }
    assert owner["operator"] == ("ok", "postgres is superuser")
    assert owner["kinguin"] == ("not set", "KINGUIN_API_KEY")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE t_doctor LOGIN IN ROLE ops_staff")
        try:
            settings.setenv("DATABASE_URL", make_conninfo(database, user="t_doctor"))
            staff = examined(0)
            assert staff["application's database"][0] == "ok"
            assert staff["operator"] == ("ok", "t_doctor is staff")
            connection.execute("REVOKE ops_staff FROM t_doctor")
            connection.execute("GRANT ops_exporter TO t_doctor")
            assert "no operator" in examined(0)["operator"][1]
        finally:
            connection.execute("DROP ROLE t_doctor")


def test_each_fault_says_what_to_do(settings: pytest.MonkeyPatch, database: str, redis: str, app_database: str) -> None:
    """Views gone, a migration missing, a Redis that forgets, pages that do not answer. One does not hide another."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP SCHEMA ops_view CASCADE")
    with redis_py.Redis.from_url(redis) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    for name in ("APP_BASE_URL", "APP_METRICS_URL", "PROMETHEUS_URL", "KINGUIN_BASE_URL"):
        settings.setenv(name, "http://127.0.0.1:1")
    settings.setenv("KINGUIN_API_KEY", "a-key-to-hide")
    settings.setenv("OPS_FLAGS_FILE", "/nonexistent/flags.yaml")
    found = examined(1)
    assert "opsctl contract apply" in found["application's database"][1]
    assert "noeviction" in found["queues"][1]
    assert found["flags file"][0] == "failed"
    assert "OPS_FLAGS_FILE" in found["flags file"][1]
    for part, name in (
        *(("application", "APP_BASE_URL"), ("application's metrics", "APP_METRICS_URL")),
        *(("prometheus", "PROMETHEUS_URL"), ("kinguin", "KINGUIN_BASE_URL")),
    ):
        assert found[part][0] == "failed"
        assert name in found[part][1]
    assert "a-key-to-hide" not in str(found)
    settings.setenv("DATABASE_URL", app_database)
    settings.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    found = examined(1)
    assert "opsctl migrate up" in found["schema ops"][1]
    assert "is it running" in found["queues"][1]


def test_nothing_set_at_all_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, with where to look."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert isinstance(CliRunner().invoke(cli, ["doctor"]).exception, ConfigError)
