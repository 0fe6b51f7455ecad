"""`python -m tests.boards`: run the demo, draw each board from its JSON and what it gets, photograph it for docs/."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.boards import sheet
from tests.boards.answers import answers
from tests.boards.live import Live, live
from tests.boards.model import ROOT, boards, variables

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = 24 * sheet.COLUMN + 16


def draw(here: Live, folder: Path) -> dict[str, str]:
    """Write one PNG per board into the folder; each board's page by its name."""
    pages = {}
    for name, board in boards().items():
        chosen = {"order": here.order} if name == "order" else {}
        for key, value in chosen.items():
            variables(board)[key]["current"]["text"] = value
        pages[name] = sheet.page(board, list(answers(board, here, chosen)))
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        tab = browser.new_page(viewport={"width": WIDE, "height": 800})
        for name, page in pages.items():
            file = Path(place) / f"{name}.html"
            file.write_text(page, "utf-8")
            tab.goto(file.as_uri())
            tab.screenshot(path=folder / f"{name}.png", full_page=True)
        browser.close()
    return pages


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "boards"
    where.mkdir(parents=True, exist_ok=True)
    with live() as running:
        draw(running, where)
