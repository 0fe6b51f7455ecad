"""The report and a real Prometheus that remembers yesterday and last week: its blocks are made by promtool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import httpx
import pytest

from demo.processes import Account, Server, free_port
from opslib import settings
from opslib.report import make
from opslib.report.model import Level
from opslib.storage import Place
from tests.service.report_kit import a_bucket, settings_of, yesterday
from tests.service.s3_kit import as_job

ROOT = Path(__file__).parents[2]
NOON = datetime.combine(yesterday(), time(12), UTC)
MONDAY = make.monday_of(yesterday()) - timedelta(days=7)


def _samples() -> Iterator[str]:
    """Openmetrics: three alerts that fired, one that never got so far, latencies, a promise half broken."""
    for minute in range(-5, 26):
        at = (NOON + timedelta(minutes=minute)).timestamp()
        for name, state, severity in (
            ("PaidNotFulfilled", "firing" if minute >= 0 else "pending", "page"),
            ("FlagDrift", "firing", "ticket"),
            ("Heartbeat", "firing", "heartbeat"),
            ("BackupStale", "pending", "page"),
        ):
            yield f'ALERTS{{alertname="{name}",alertstate="{state}",severity="{severity}",queue="a<b>"}} 1 {at:.0f}'
        yield f'bitloot_provider_latency_seconds{{provider="kinguin"}} 0.25 {at:.0f}'
    for hours in range(0, 7 * 24, 6):
        at = (datetime.combine(MONDAY, time(), UTC) + timedelta(hours=hours)).timestamp()
        yield f'slo:provider:error_ratio_3d{{provider="kinguin"}} 0.02 {at:.0f}'
        yield f"slo:ipn:error_ratio_3d 0.001 {at:.0f}"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Debian's, with the rules as they are generated."""
    names: dict[str, list[str]] = {}
    for line in _samples():
        names.setdefault(line.split("{")[0].split(" ")[0], []).append(line)
    source = tmp_path / "past.txt"
    families = (f"# TYPE {name} gauge\n" + "\n".join(of) + "\n" for name, of in names.items())
    source.write_text("".join(families) + "# EOF\n", "utf-8")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(source), str(tmp_path / "tsdb")]
    subprocess.run(blocks, check=True, capture_output=True, timeout=60)
    (tmp_path / "prometheus.yml").write_text(f"rule_files: ['{ROOT}/prometheus/rules/*.yml']\n")
    url = f"http://127.0.0.1:{free_port()}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready").is_success
        except httpx.TransportError:
            return False

    argv = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    argv += [f"--web.listen-address={url.removeprefix('http://')}"]
    with Server("Prometheus", argv, log=tmp_path / "log", ready=ready, account=Account.ours()):
        yield url


def _rows(made: make.Made, section: str) -> list[list[str]]:
    """The one table of a section, as shown."""
    (table,) = (table for of in made.report.sections if of.id == section for table in of.tables)
    return [[cell.text for cell in row.cells] for row in table.rows]


def _from_to(first: datetime) -> list[str]:
    """As shown; a sample holds for five minutes where no server ran to mark its end."""
    return [f"{at:%Y-%m-%d %H:%M:%S}" for at in (first, NOON + timedelta(minutes=30))]


def test_what_fired_is_on_the_page(prometheus: str, database: str, redis: str, rclone_s3: Place) -> None:
    """Each alert once, from when on; one that called makes the day broken; a heart-beat or a pending one is none."""
    env = settings_of(as_job(database), redis, a_bucket(rclone_s3, database)) | {"PROMETHEUS_URL": prometheus}
    at = datetime.combine(yesterday() + timedelta(days=1), time(3), UTC)
    made = make.day(settings.load(env), yesterday(), now=at)
    assert _rows(made, "alerts") == [
        ["FlagDrift", "ticket", "queue=a<b>", *_from_to(NOON - timedelta(minutes=5))],
        ["PaidNotFulfilled", "page", "queue=a<b>", *_from_to(NOON)],
    ]
    assert made.report.verdict.level == Level.BROKEN
    assert "alerts called somebody: PaidNotFulfilled" in made.report.verdict.sentence
    page = made.files["index.html"].decode()
    assert "queue=a&lt;b&gt;" in page
    assert "a<b>" not in page

    before = make.day(settings.load(env), yesterday() - timedelta(days=1), now=at)
    assert _rows(before, "alerts") == []


def test_promises_of_the_week(prometheus: str, database: str, redis: str, rclone_s3: Place) -> None:
    """What of each error budget is used, by the shares the rules allow."""
    env = settings_of(as_job(database), redis, a_bucket(rclone_s3, database)) | {"PROMETHEUS_URL": prometheus}
    made = make.week(settings.load(env), MONDAY)
    assert _rows(made, "slo") == [
        ["ipn", "0.10%", "0.50%", "20%"],
        ["provider provider=kinguin", "2.00%", "1.00%", "200%"],
    ]
    assert "provider used 200% of its error budget" in made.report.verdict.sentence
