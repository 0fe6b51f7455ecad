"""From plain data to files: HTML by Jinja2 (everything escaped, nothing undefined), CSV and NDJSON of each list.

A page holds its own style, allowed by its hash; its policy forbids everything else, scripts above all.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from opslib.report.lists import LIMIT, Library, Pages
from opslib.report.model import Gap, Report
from opslib.shown import iso, to_csv, to_json

Files = Mapping[str, bytes]

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Of the templates."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style = (TEMPLATES / "style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made.globals["style"] = Markup(style)  # noqa: S704 - our own file
    made.globals["policy"] = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    made.globals["limit"] = LIMIT
    made.filters["iso"] = lambda at: iso(at.replace(microsecond=0))
    return made


def page(template: str, **values: Any) -> bytes:
    """One page."""
    return environment().get_template(template).render(**values).encode()


def report(made: Report, *, up: str, lists: Library | None = None) -> dict[str, bytes]:
    """The files of a report by name.

    Args:
        made: What is said.
        up: The way to the calendar, relative.
        lists: The admin pages beside it.
    """
    menu = [(every[0].of.title, every[0].file(1)) for every in lists.lists] if lists else []
    files = {"index.html": page("report.html.j2", report=made, up=up, menu=menu)}
    files["report.json"] = to_json(summary(made)).encode()
    for every in lists.lists if lists else ():
        for pages in every:
            common = {"report": made, "every": every, "up": up, "menu": menu}
            files.update(_list(lists, pages, common) if lists else {})
    return files


def summary(made: Report) -> dict[str, Any]:
    """What a program wants of a report."""
    return {
        "title": made.title,
        "first": made.first,
        "last": made.last,
        "level": made.verdict.level.name.lower(),
        "verdict": made.verdict.sentence,
        "data_through": made.through,
        "generated_at": made.generated,
        "not_read": [{"what": gap.what, "why": gap.why} for section in made.sections for gap in section.gaps],
        "sections": {
            section.id: {
                "numbers": {kpi.name: kpi.value for kpi in section.kpis},
                "charts": {chart.id: _data(chart) for chart in section.charts},
            }
            for section in made.sections
        },
    }


def _data(chart: Any) -> Any:
    """A chart's values as numbers."""
    match chart.kind:
        case "bars":
            return {label: value for label, value, _ in chart.items}
        case "stacked":
            return {label: dict(values) for label, values in chart.rows}
        case "line":
            return {name: dict(zip(chart.labels, values, strict=True)) for name, _, values in chart.series}
        case "spark":
            return list(zip(chart.labels, chart.values, strict=True))
        case _:
            return {
                name: {chart.labels[n]: said for n, (_, said) in enumerate(cells) if said} for name, cells in chart.rows
            }


def _list(lists: Library, pages: Pages, common: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    gap: Gap | None = pages.gap
    for number in range(1, pages.count + 1):
        here = {"pages": pages, "number": number, "table": lists.table(pages, number), "gap": gap}
        yield pages.file(number), page("list.html.j2", **common, **here)
    if gap is None:  # a file without rows would say that there are none
        keys = list(pages.rows[0]) if pages.rows else [column.key for column in pages.of.columns]
        yield f"{pages.stem}.csv", to_csv(pages.rows, keys).encode()
        yield f"{pages.stem}.ndjson", "".join(to_json(row, indent=None) + "\n" for row in pages.rows).encode()


def calendar(index: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """The way in: every report there is, by month.

    Args:
        index: By place (`2026/11/19`, `2026/W47`): level and verdict of each.
    """
    days = {place: entry for place, entry in index.items() if "/W" not in place}
    weeks = {place: entry for place, entry in index.items() if "/W" in place}
    months: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for place in sorted(days, reverse=True):
        months.setdefault(place[:7].replace("/", "-"), []).append((place, days[place]))
    return {
        "index.html": page(
            "calendar.html.j2",
            months=months,
            weeks=[(place, weeks[place]) for place in sorted(weeks, reverse=True)],
        ),
        "index.json": json.dumps(index, indent=1, sort_keys=True).encode(),
    }
