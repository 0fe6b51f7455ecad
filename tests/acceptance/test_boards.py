"""The boards over the demo: every panel shows what the demo has, on a real Prometheus and a real Postgres."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boards import databases
from tests.boards.__main__ import draw
from tests.boards.answers import EMPTY, problems
from tests.boards.live import Live, live
from tests.boards.model import boards, panels

PATIENCE = 90
"""Seconds a panel may wait for its first fact: a job of the demo runs once a minute."""


@pytest.fixture(scope="module")
def demo() -> Iterator[Live]:
    """The demo after most of a minute of traffic."""
    with live() as running:
        yield running


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", boards())
def test_every_panel_shows_what_is_there(name: str, demo: Live) -> None:
    """No query fails, none is empty where the demo has the fact, no two series of a panel have one name."""
    chosen = {"order": demo.order} if name == "order" else None
    deadline = time.monotonic() + PATIENCE
    while (found := list(problems(boards()[name], demo, chosen))) and time.monotonic() < deadline:
        time.sleep(5)
    assert found == []


@pytest.mark.parametrize("name", boards())
def test_annotations_can_be_asked(name: str, demo: Live) -> None:
    """Prometheus takes each; a restart of the exporters a minute ago is a deploy."""
    for annotation in boards()[name]["annotations"]["list"]:
        found = demo.range(annotation["expr"])
        assert found or annotation["name"] == "Incidents"


@pytest.mark.parametrize("name", boards())
def test_hostile_values_find_nothing_in_a_full_shop(name: str, demo: Live) -> None:
    """With rows to be found, still none is."""
    assert list(databases.hostile(boards()[name], demo.dsn)) == []


def test_exceptions_are_of_panels_that_exist() -> None:
    """Whoever may be empty is on a board."""
    titles = {f"{board['title']}: {panel['title']}" for board in boards().values() for panel in panels(board)}
    assert EMPTY.keys() <= titles


def test_the_contact_sheet(demo: Live, tmp_path: Path) -> None:
    """Each board is drawn and photographed without an error on it, and says that it is not Grafana."""
    for name, page in draw(demo, tmp_path).items():
        assert "not Grafana" in page
        assert 'class="error"' not in page
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
