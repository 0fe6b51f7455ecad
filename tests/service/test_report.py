"""The report on real servers: its numbers, its pages, what it says when a source is away, where it goes."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
from click.testing import CliRunner

from jobs import daily_report, weekly_report
from opsctl.cli import cli
from opslib import settings
from opslib.errors import ConfigError, JobError
from opslib.report import make
from opslib.report.lists import LISTS
from opslib.report.make import Made
from opslib.report.model import Level
from opslib.report.publish import PREFIX, Bucket, Folder, expired
from opslib.run import Run
from opslib.storage import Place, Storage
from tests.service.report_kit import HOSTILE, a_bucket, a_queue, a_shop, settings_of, yesterday
from tests.service.s3_kit import as_job, place_of

DEAD = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def env(database: str, redis: str, rclone_s3: Place) -> dict[str, str]:
    """The settings of a shop with something of everything."""
    a_shop(database, yesterday())
    a_queue(redis, yesterday())
    return settings_of(as_job(database), redis, a_bucket(rclone_s3, database))


def of_day(env: dict[str, str]) -> Made:
    """Yesterday's report."""
    return make.day(settings.load(env), yesterday())


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, links, anchors and text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element."""
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href" and value and tag == "a":
                self.links.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        """Text."""
        self.text += data


def test_numbers_are_those_of_sql(env: dict[str, str], database: str) -> None:
    """To the unit, by the application's own tables."""
    day = yesterday()
    found = json.loads(of_day(env).files["report.json"])
    with psycopg.connect(database) as app:
        span = (day, day + timedelta(days=1))
        count, value = app.execute(
            'SELECT count(*), sum("totalCrypto") FROM orders WHERE "createdAt" >= %s AND "createdAt" < %s', span
        ).fetchall()[0]
        payments = app.execute(
            """SELECT status::text, count(*) FROM payments WHERE "createdAt" >= %s AND "createdAt" < %s GROUP BY 1""",
            span,
        ).fetchall()
        hours = app.execute(
            """SELECT extract(hour FROM "createdAt")::int, count(*) FROM orders
               WHERE "createdAt" >= %s AND "createdAt" < %s GROUP BY 1""",
            span,
        ).fetchall()
        calls = app.execute('SELECT count(*) FROM webhook_logs WHERE "createdAt" >= %s AND "createdAt" < %s', span)
        called = calls.fetchall()[0][0]
    numbers = found["sections"]["numbers"]["numbers"]
    assert numbers["Orders"] == f"{count:,}"
    assert numbers["Value ordered"] == f"{value:,.2f} EUR"
    charts = found["sections"]["orders"]["charts"]
    assert charts["payments"] == dict(payments)
    assert {h: n for h, n in charts["hours"]["This day"].items() if n} == {f"{h:02}:00": n for h, n in hours}
    outcomes = found["sections"]["webhooks"]["charts"]["outcomes"]
    assert sum(n for each in outcomes.values() for n in each.values()) == called
    assert set(outcomes) == {"nowpayments", "kinguin", "other"}


def test_final_facts_outlive_their_rows(env: dict[str, str], database: str) -> None:
    """Of a final day the numbers are those that were written, though the rows are gone."""
    before = json.loads(of_day(env).files["report.json"])["sections"]["numbers"]["numbers"]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("INSERT INTO ops.fact_days (day, final) VALUES (%s, true)", (yesterday(),))
        owner.execute("INSERT INTO ops.daily_facts VALUES (%s, 'orders', 'fulfilled', 77)", (yesterday(),))
    after = json.loads(of_day(env).files["report.json"])["sections"]["numbers"]["numbers"]
    assert before["Orders"] != "77"
    assert after["Orders"] == "77"


def test_pages_hold_every_row_once_and_are_linked(env: dict[str, str], database: str) -> None:
    """At most a hundred on a page; every link leads to a page and an anchor that are there; CSV and NDJSON agree."""
    files = of_day(env).files
    pages = {name: Seen(content) for name, content in files.items() if name.endswith(".html")}
    for name, seen in pages.items():
        assert len(seen.ids) == len(set(seen.ids)), name
        assert sum(one.startswith("orders-") for one in seen.ids) <= 100
        for link in seen.links:
            file, _, anchor = link.partition("#")
            if file.startswith("../../../"):
                continue
            target = file or name
            assert target in files, (name, link)
            assert not anchor or unquote(anchor) in pages[target].ids, (name, link)
    with psycopg.connect(database) as app:
        ids = {str(row[0]) for row in app.execute("SELECT id FROM orders").fetchall()}
    shown = "".join(pages[n].text for n in ("orders.html", "orders.2.html", "orders.3.html"))
    assert [shown.count(one) for one in ids] == [1] * 240
    assert any(link.startswith("payments") and "#" in link for link in pages["orders.html"].links)
    assert any(link.startswith("orders") and "#" in link for link in pages["payments.html"].links)
    for listed in LISTS:
        lines = files[f"{listed.name}.ndjson"].decode().splitlines()
        rows = list(csv.DictReader(io.StringIO(files[f"{listed.name}.csv"].decode())))
        assert [str(json.loads(line)[listed.id]) for line in lines] == [r[listed.id].removeprefix("'") for r in rows]
        assert rows or listed.name == "audit"  # what was done today is not in yesterday's
    paid = [json.loads(line)["status"] for line in files["orders-paid.ndjson"].decode().splitlines()]
    assert set(paid) == {"paid"}


@pytest.mark.parametrize("back", [0, 1])
def test_what_an_enemy_wrote_is_text(env: dict[str, str], back: int) -> None:
    """No element, no attribute, no character that turns writing around, no formula; on every page and in every CSV."""
    files = make.day(settings.load(env), datetime.now(UTC).date() - timedelta(days=back)).files
    assert back or b"svg onload" in files["audit.csv"]
    allowed = {
        *("html", "head", "meta", "link", "title", "style", "body", "a", "header", "nav", "main", "footer", "section"),
        *(
            "h1",
            "h2",
            "p",
            "b",
            "strong",
            "span",
            "dl",
            "div",
            "dt",
            "dd",
            "figure",
            "figcaption",
            "svg",
            "desc",
            "text",
        ),
        *("rect", "path", "details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "code"),
    }
    everything = ""
    for name, content in files.items():
        text = content.decode()
        if name.endswith(".html"):
            seen = Seen(content)
            assert seen.tags <= allowed, (name, seen.tags - allowed)
            assert not [a for a in seen.attributes if a.startswith("on") or a == "style"], name
            assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", text), name
            assert "49" not in seen.text.split("{{ 7 * 7 }}")[0][-3:], name
            assert "n" * 1000 not in text, name
            everything += seen.text
        elif name.endswith(".csv"):
            for row in csv.reader(io.StringIO(text)):
                assert not [c for c in row if c.lstrip()[:1] in set("=+@") or re.match(r"-\D", c)], name
        assert not re.search(r"[^*]@example\.com", text), name
    for bad in (
        "<script>alert(document.domain)</script>",
        '"><svg onload=alert(1)>',
        "=HYPERLINK",
        "{{ 7 * 7 }}",
        "\\u202e",
    ):
        assert bad in everything, bad
    assert HOSTILE[6] in files["payments.csv"].decode()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("DATABASE_URL", DEAD, "could not read orders"),
        ("OPS_DATABASE_URL", DEAD, "slots of jobs"),
        ("REDIS_URL", "redis://127.0.0.1:1", "the queues in Redis"),
        ("R2_ENDPOINT", "http://127.0.0.1:1", "backups"),
        ("PROMETHEUS_URL", "http://127.0.0.1:1", "alerts"),
    ],
)
def test_a_source_away_is_said_and_never_green(env: dict[str, str], setting: str, value: str, said: str) -> None:
    """The report is built, names what is missing, shows no zero in its place."""
    ours = env["DATABASE_URL"]
    changed = {**env, "OPS_DATABASE_URL": ours, setting: value}
    made = of_day(changed)
    assert made.report.verdict.level >= Level.ATTENTION
    gaps = [gap.what for section in made.report.sections for gap in section.gaps]
    assert any(said.removeprefix("could not read ") in gap for gap in gaps), gaps
    assert "could not read" in made.report.verdict.sentence
    page = made.files["index.html"].decode()
    assert "Could not read" in page
    assert "127.0.0.1" not in page or "user" not in page
    if setting == "DATABASE_URL":
        assert json.loads(made.files["report.json"])["sections"]["numbers"]["numbers"] == {}
        assert "Could not read" in made.files["orders.html"].decode()
        assert "orders.csv" not in made.files
        assert made.report.through is None
    again = of_day(env)  # nothing is remembered of the outage
    assert not [gap for section in again.report.sections for gap in section.gaps]


def test_all_sources_away(env: dict[str, str]) -> None:
    """There is still a report, and quickly."""
    dead = {
        "DATABASE_URL": DEAD,
        "REDIS_URL": "redis://127.0.0.1:1",
        "PROMETHEUS_URL": "http://127.0.0.1:1",
        **{name: env[name] for name in env if name.startswith("R2_")},
        "R2_ENDPOINT": "http://127.0.0.1:1",
    }
    started = datetime.now(UTC)
    made = of_day(dead)
    assert made.report.verdict.level == Level.ATTENTION
    assert not [table for section in made.report.sections for table in section.tables]
    assert datetime.now(UTC) - started < timedelta(seconds=30)


def test_green_only_when_nothing_is_wrong(database: str, redis: str, rclone_s3: Place) -> None:
    """A quiet, proven, settled day is green; the same day, still running, is not."""
    env = settings_of(as_job(database), redis, a_bucket(rclone_s3, database))
    at = datetime.combine(yesterday() + timedelta(days=1), time(3), UTC)
    made = make.day(settings.load(env), datetime.now(UTC).date() - timedelta(days=1), now=at)
    assert made.report.verdict.sentence == "Green: nothing needs anybody."
    today = make.day(settings.load(env), datetime.now(UTC).date())
    assert today.report.verdict.level == Level.ATTENTION
    assert "the day is not over" in today.report.verdict.sentence
    place = place_of(env)
    Storage(place).delete_many(one.key for one in Storage(place).list(""))
    bare = make.day(settings.load(env), yesterday(), now=at)
    assert bare.report.verdict.sentence == "Broken: there is no backup."


def test_weekly(env: dict[str, str], database: str) -> None:
    """Trends come from the written facts; a week of which a day is missing is no zero."""
    monday = make.monday_of(yesterday())
    with psycopg.connect(database, autocommit=True) as owner:
        for n in range(-7, 0):
            day = monday + timedelta(days=n)
            owner.execute("INSERT INTO ops.fact_days (day, final) VALUES (%s, true)", (day,))
            owner.execute("INSERT INTO ops.daily_facts VALUES (%s, 'orders', 'paid', 10)", (day,))
    made = make.week(settings.load(env), monday - timedelta(days=7))
    found = json.loads(made.files["report.json"])
    values = list(found["sections"]["trends"]["charts"]["trend0"]["Orders"].values())
    assert values == [None] * 7 + [70.0]
    assert made.place == f"{monday - timedelta(days=7):%G/W%V}"
    assert found["sections"]["trends"]["numbers"]["Orders"] == "70"
    assert not [gap for section in made.report.sections for gap in section.gaps]


def test_the_command_builds_into_a_folder(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints where; twice is once; the calendar leads to what is there."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    day = yesterday()
    for _ in range(2):
        ended = CliRunner().invoke(cli, ["report", "build", "--day", str(day), "-o", str(tmp_path)])
        assert ended.exit_code == 0, ended.output
        assert ended.stdout.strip() == str(tmp_path / f"{day:%Y/%m/%d}" / "index.html")
    assert not [path for path in tmp_path.rglob("*") if "part" in path.name]
    week = CliRunner().invoke(cli, ["report", "build", "--week", str(day), "-o", str(tmp_path)])
    assert week.exit_code == 0, week.output
    seen = Seen((tmp_path / "index.html").read_bytes())
    assert sorted(seen.links) == sorted(["#content", f"{day:%Y/%m/%d}/index.html", f"{day:%G/W%V}/index.html"])
    for arguments in ((), ("--day", "x"), ("--day", "today", "--week", "today"), ("--day", "2999-01-01")):
        wrong = CliRunner().invoke(cli, ["report", "build", *arguments, "-o", str(tmp_path)])
        assert wrong.exit_code != 0


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path, rclone_s3: Place) -> Any:
    """An empty place to publish to."""
    if request.param == "folder":
        return Folder(tmp_path / "www")
    storage = Storage(rclone_s3)
    storage.delete_many(one.key for one in storage.list(""))
    return Bucket(storage)


def test_publishing_keeps_the_newest(root: Any) -> None:
    """So many reports stay, others go whole, nothing else is touched; what came again is replaced whole."""
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(10)]
    entry = {"level": "green", "verdict": "Green."}
    for day in days:
        files = {"index.html": b"old", "gone.csv": b"1"}
        root.publish(f"{day:%Y/%m/%d}", entry, files, keep_days=8, keep_weeks=8)
    root.publish("2026/W01", {"level": "broken", "verdict": "B."}, {"index.html": b"w"}, keep_days=8, keep_weeks=8)
    assert root.places() == {f"{day:%Y/%m/%d}" for day in days[2:]} | {"2026/W01"}
    root.publish("2026/01/10", entry, {"index.html": b"new"}, keep_days=8, keep_weeks=8)
    if isinstance(root, Folder):
        assert [path.name for path in (root.path / "2026/01/10").iterdir()] == ["index.html"]
        assert not (root.path / "2026/01/01").exists()
    else:
        names = [one.key for one in root._storage.list(f"{PREFIX}2026/01/10/")]
        assert names == [f"{PREFIX}2026/01/10/index.html"]
    index = json.loads(root.get("index.json"))
    assert index["2026/W01"]["level"] == "broken"
    assert set(index) == root.places()
    assert b"2026/01/10/index.html" in root.get("index.html")


def test_retention_is_a_plan() -> None:
    """The newest seven stay whatever is asked, a clock has no say."""
    days = [f"2026/01/{n:02}" for n in range(1, 21)]
    assert expired(days, 15, 10) == days[4::-1]
    assert expired(days, 0, 0) == days[12::-1]
    assert expired(["2026/W01", *days], 20, 7) == []


def test_the_jobs_publish_to_both(env: dict[str, str], tmp_path: Path) -> None:
    """Folder and bucket hold the same; where one fails the other has it, and the run fails."""

    def of(changed: dict[str, str], slot: datetime) -> Run:
        loaded = settings.load(changed)
        return Run(1, "daily-report", loaded, slot, 1, "schedule", lambda _: None, lambda: False)

    here = {**env, "OPS_REPORT_FOLDER": str(tmp_path / "www")}
    slot = datetime.combine(yesterday() + timedelta(days=1), time(3), UTC)
    result = daily_report.run(of(here, slot), daily_report.Params())
    assert result.place == f"{yesterday():%Y/%m/%d}"
    storage = Storage(place_of(env))
    prefix = f"{PREFIX}{result.place}/"
    stored = {one.key.removeprefix(prefix) for one in storage.list(prefix)}
    local = {path.name for path in (tmp_path / "www" / result.place).iterdir()}
    assert stored == local
    assert len(stored) == result.files
    assert storage.get(f"{prefix}index.html") == (tmp_path / "www" / result.place / "index.html").read_bytes()
    again = daily_report.run(of(here, slot), daily_report.Params(day=yesterday()))
    assert again.files == result.files
    week = weekly_report.run(of(here, slot), weekly_report.Params(day=yesterday()))
    assert (tmp_path / "www" / week.place / "index.html").exists()
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(JobError, match="folder"):
        daily_report.run(of({**env, "OPS_REPORT_FOLDER": str(blocked)}, slot), daily_report.Params())
    nowhere = {name: value for name, value in env.items() if not name.startswith("R2_")}
    with pytest.raises(ConfigError, match="OPS_REPORT_FOLDER"):
        daily_report.run(of(nowhere, slot), daily_report.Params())
