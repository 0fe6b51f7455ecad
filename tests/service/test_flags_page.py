"""The flags on the page: drift, a broken file, staleness, expiry and overrides, as flag-sync left them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo.postgres import PostgresServer
from exporters.flags import SUBJECT, Flags, collectors
from jobs import flag_sync
from jobs.flag_sync import JOB
from opslib import settings
from opslib.contract import migrate
from opslib.errors import JobError, SourceError
from opslib.spec import NoParams
from tests.service.job_kit import a_run

FIELDS = "description: d, category: c, owner: o"
Page = dict[tuple[str, ...], float]


async def page(dsn: str) -> Page:
    """What the collector shows now, by name and labels."""
    (collector,) = collectors(settings.load({"DATABASE_URL": dsn}))
    assert isinstance(collector, Flags)
    await collector.start()
    try:
        await collector.probe()
        samples = await collector.collect()
    finally:
        await collector.stop()
    assert {sample.metric for sample in samples} <= set(SUBJECT.metrics)
    return {(sample.metric.name.removeprefix("ops_"), *sample.labels): sample.value[0] for sample in samples}


async def test_what_flag_sync_found(database: str, tmp_path: Path) -> None:
    """Nothing before the first sync; then each state, and what a broken file, a hand and an override make of it."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS flags_exporter")
        owner.execute("CREATE ROLE flags_exporter LOGIN IN ROLE ops_exporter")
        dsn = make_conninfo(database, user="flags_exporter")
        assert await page(dsn) == {}
        file = tmp_path / "flags.yaml"
        env = {"DATABASE_URL": database, "OPS_FLAGS_FILE": str(file), "OPS_FLAGS_VIA": "table"}
        sync = a_run(JOB.name, **env)
        with pytest.raises(JobError):
            await asyncio.to_thread(flag_sync.run, sync, NoParams())
        assert await page(dsn) == {("flags_file_valid",): 0}
        file.write_text(
            "flags:\n"
            f"  kinguin_enabled: {{enabled: true, {FIELDS}, expiry: 2026-01-31}}\n"
            f"  captcha_enabled: {{enabled: true, {FIELDS}, scope: user, rollout: 20}}\n"
            f"  nonsense: {{enabled: true, {FIELDS}}}\n"
        )
        before = datetime.now(UTC).timestamp()
        await asyncio.to_thread(flag_sync.run, sync, NoParams())
        shown = await page(dsn)
        synced = shown.pop(("flags_synced_timestamp_seconds",))
        assert before <= synced <= datetime.now(UTC).timestamp()
        assert shown == {
            ("flags_file_valid",): 1,
            ("flags", "in_sync"): 1,
            ("flags", "drift"): 0,
            ("flags", "unknown"): 1,
            ("flags", "document_only"): 1,
            ("flags", "undeclared"): 6,
            ("flag_drift", "kinguin_enabled"): 0,
            ("flag_drift", "captcha_enabled"): 0,
            ("flag_drift", "nonsense"): 0,
            ("flag_expiry_timestamp_seconds", "kinguin_enabled"): datetime(2026, 2, 1, tzinfo=UTC).timestamp(),
        }
        owner.execute("UPDATE feature_flags SET enabled = false WHERE name = 'kinguin_enabled'")
        await asyncio.to_thread(flag_sync.run, sync, NoParams())
        until = datetime.now(UTC) + timedelta(hours=1)
        owner.execute("SELECT ops.flag_override('nonsense', false, %s, 'r')", (until,))
        shown = await page(dsn)
        assert (shown["flags", "drift"], shown["flag_drift", "kinguin_enabled"]) == (1, 1)
        assert shown["flag_override_until_timestamp_seconds", "nonsense"] == pytest.approx(until.timestamp(), abs=0.001)
        file.write_text("flags: []")
        with pytest.raises(JobError):
            await asyncio.to_thread(flag_sync.run, sync, NoParams())
        broken = await page(dsn)
        assert broken.pop(("flags_file_valid",)) == 0
        assert broken.items() <= shown.items(), "all else stands, and grows stale"


async def test_a_database_that_is_away(own_postgres: PostgresServer) -> None:
    """No number, and back by itself."""
    dsn = own_postgres.dsn()
    await asyncio.to_thread(migrate.up, dsn)
    assert await page(dsn) == {}
    own_postgres.kill()
    with pytest.raises(SourceError):
        await page(dsn)
    own_postgres.start()
    assert await page(dsn) == {}
