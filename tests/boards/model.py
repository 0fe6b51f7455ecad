"""The boards as they lie in grafana/dashboards/, and text filled in as Grafana fills it in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]

SPANS = {"h": "hours", "d": "days"}
VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?::(?P<format>\w+))?\}|\$(?P<bare>\w+)")
TIMES = ("__timeFrom", "__timeTo")


def boards() -> dict[str, Json]:
    """Every board by its file's name, read anew: a test may spoil its own."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(ROOT.glob("grafana/dashboards/*.json"))}


def panels(board: Json) -> Iterator[Json]:
    """Its panels without the rows' headings."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def targets(board: Json) -> Iterator[tuple[Json, Json]]:
    """Every panel with each of its queries."""
    return ((panel, target) for panel in panels(board) for target in panel["targets"])


def sql_of(board: Json) -> Iterator[tuple[str, str, str]]:
    """Every statement of a board, its variables' included: where it stands, its data source, its text."""
    for panel, target in targets(board):
        if "rawSql" in target:
            yield panel["title"], target["datasource"]["uid"], target["rawSql"]
    for variable in variables(board).values():
        if variable["type"] == "query" and isinstance(variable["query"], str):
            yield f"${variable['name']}", variable["datasource"]["uid"], variable["query"]


def promql_of(board: Json) -> Iterator[tuple[str, str]]:
    """Every PromQL of a board: where it stands, and its text."""
    for panel, target in targets(board):
        if "expr" in target:
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def variables(board: Json) -> dict[str, Json]:
    """Its variables by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def filled(text: str, board: Json, chosen: Mapping[str, str] | None = None, *, now: datetime | None = None) -> str:
    """A query with macros and variables replaced; a variable that is not chosen has its first value.

    As Grafana does: a chosen or typed value goes through its format, `sqlstring` doubling quotes; the text given for
    "All" goes in as it stands.

    Raises:
        KeyError: A variable or a format is not known.
    """
    to = now or datetime.now(UTC) + timedelta(minutes=1)  # a clock ahead of us shall not hide the newest row
    amount = re.fullmatch(r"now-(\d+)([hd])", board["time"]["from"])
    assert amount, board["time"]
    span = timedelta(**{SPANS[amount[2]]: int(amount[1])})
    known = variables(board)
    for macro, at in zip(TIMES, (to - span, to), strict=True):
        text = text.replace(f"${macro}()", f"'{at.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}'")

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["bare"]
        variable = known[name]
        given = (chosen or {}).get(name, variable["current"]["value"])
        if given == "$__all":
            return str(variable["allValue"])
        return _FORMATS[found["format"] or ""](given)

    return VARIABLE.sub(value, text)


_FORMATS = {"": str, "sqlstring": lambda value: "'" + value.replace("'", "''") + "'"}
