"""The report in Debian's chromium, offline: nothing asked for, nothing said, nothing in a reader's way.

axe-core comes from npm and is injected past the page's policy by the test itself; the page never sees a script.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from opslib import settings
from opslib.report import make
from opslib.report.publish import Folder
from opslib.storage import Place
from tests.service.queue_kit import installed
from tests.service.report_kit import a_bucket, a_queue, a_shop, settings_of, yesterday
from tests.service.s3_kit import as_job

ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
KEPT = os.environ.get("REPORT_PICTURES")
"""A folder to keep pictures in: `docs/reports`, to look at them."""

SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
    "tablet": {"color_scheme": "dark", "viewport": {"width": 1010, "height": 1100}},
}
PICTURES = {"day-light", "day-dark", "day-phone", "week-light", "calendar-light", "orders-light", "webhooks-phone"}
"""Those worth keeping."""

PAGES = ("index.html", "orders.html", "payments.html", "webhooks.html", "reservations.html", "failed-jobs.html")
MORE = ("job-runs.html", "backups.html", "audit.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's; a skipped test is a test nobody misses."""
    found = shutil.which("chromium")
    if found is None:
        pytest.fail("these tests need chromium: `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script."""
    return (installed("axe-core", "axe-core@4") / "node_modules/axe-core/axe.min.js").read_text()


@pytest.fixture
def site(database: str, redis: str, rclone_s3: Place, tmp_path: Path) -> Path:
    """A root with a day, today and a week, all of a shop with an enemy."""
    day = yesterday()
    a_shop(database, day, orders=60)
    a_queue(redis, day)
    loaded = settings.load(settings_of(as_job(database), redis, a_bucket(rclone_s3, database)))
    today = datetime.now(UTC).date()
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread runs playwright's event loop
        asked = (
            elsewhere.submit(make.day, loaded, day),
            elsewhere.submit(make.day, loaded, today),
            elsewhere.submit(make.week, loaded, make.monday_of(day)),
        )
    for made in (each.result() for each in asked):
        Folder(tmp_path).publish(made.place, made.entry, made.files, keep_days=99, keep_weeks=99)
    return tmp_path


def _watched(page: Page) -> list[str]:
    """What it asks for beyond its own file, and what it says."""
    said: list[str] = []
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    return said


@pytest.mark.timeout(300)
@pytest.mark.parametrize("screen", SCREENS)
def test_offline_silent_and_accessible(chromium: Browser, axe: str, site: Path, screen: str) -> None:
    """No request, no console message, no violation, no sideways scroll; on every kind of page."""
    day = site / f"{yesterday():%Y/%m/%d}"
    week = next(site.glob("*/W*"))
    pages = [
        site / "index.html",
        week / "index.html",
        *(day / name for name in (*PAGES, *MORE)),
        day / "orders-paid.html",
    ]
    plain = chromium.new_context(offline=True, **SCREENS[screen])
    # axe is a script, which the page's own policy forbids: for it alone the policy is set aside.
    checked = chromium.new_context(offline=True, bypass_csp=True, **SCREENS[screen])
    for path in pages:
        page = plain.new_page()
        said = _watched(page)
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        assert said == [], path
        for closed in page.query_selector_all("details"):
            closed.evaluate("each => each.setAttribute('open', '')")
        wide, screen_wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= screen_wide, path
        assert page.evaluate("document.querySelectorAll('script').length") == 0
        if KEPT and path.parent in (day, week, site) and path.name in ("index.html", "orders.html", "webhooks.html"):
            page.evaluate("document.querySelectorAll('details').forEach(each => each.removeAttribute('open'))")
            kind = "day" if path.parent == day else "week" if path.parent == week else "calendar"
            name = kind if path.name == "index.html" else path.stem
            if f"{name}-{screen}" in PICTURES:
                page.screenshot(path=Path(KEPT) / f"{name}-{screen}.png", full_page=path.name == "index.html")
        page.close()
        with_axe = checked.new_page()
        with_axe.goto(path.as_uri())
        with_axe.evaluate(axe)
        with_axe.evaluate("document.querySelectorAll('details').forEach(each => each.setAttribute('open', ''))")
        found = with_axe.evaluate("axe.run(document, {resultTypes: ['violations']})")
        violations = [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]]
        assert violations == [], path
        assert len(found["passes"]) > 10
        with_axe.close()
    plain.close()
    checked.close()


def test_printed_on_a4(chromium: Browser, site: Path, tmp_path: Path) -> None:
    """Black on white though the screen is dark; nothing is wider than the paper."""
    context = chromium.new_context(offline=True, color_scheme="dark", viewport={"width": 720, "height": 1020})
    page = context.new_page()
    page.goto((site / f"{yesterday():%Y/%m/%d}" / "index.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    wide, paper = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= paper
    if KEPT:
        page.screenshot(path=Path(KEPT) / "day-print.png", full_page=True)
    printed = page.pdf(path=tmp_path / "day.pdf", format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") <= 8
    context.close()


def test_the_policy_forbids_what_slipped_through(chromium: Browser, site: Path, tmp_path: Path) -> None:
    """Were an enemy's script on the page after all, it would not run, and no picture would be fetched."""
    path = site / f"{yesterday():%Y/%m/%d}" / "index.html"
    page_text = path.read_text().replace(
        "</main>",
        "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x'><p style='color:red'>x</p></main>",
    )
    bad = tmp_path / "bad.html"
    bad.write_text(page_text)
    context = chromium.new_context()
    page = context.new_page()
    fetched: list[str] = []
    page.on("requestfinished", lambda request: fetched.append(request.url))
    page.goto(bad.as_uri())
    assert page.title() != "owned"
    assert not [url for url in fetched if url.startswith("http")]
    context.close()
