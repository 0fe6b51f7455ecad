"""The contact sheet: a page drawn from the boards' JSON and the live answers. It is not Grafana, and says so.

It follows the same instructions - place, thresholds, mappings, units, overrides, transformations - so that a board
that would be ugly or empty there is so here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.boards.answers import Answer
from tests.boards.model import Json

COLUMN = 66
"""Pixels of one of the grid's 24 columns."""
ROW = 38
COLOURS = {"green": "#56a64b", "red": "#e02f44", "orange": "#ff780a", "blue": "#3274d9", "text": "#8a8f98"}
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#b7dbab", "#f4d598", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
MOST_SERIES = 12
MOST_ROWS = 40

STYLE = Path(__file__).with_name("sheet.css").read_text("utf-8")


def page(board: Json, answers: Sequence[Answer]) -> str:
    """One board with its answers, in the order of its panels."""
    height = max(place["y"] + place["h"] for place in (panel["gridPos"] for panel in board["panels"]))
    by_id = {answer.panel["id"]: answer for answer in answers}
    drawn = "".join(
        f'<div class="row" style="{_place(panel["gridPos"])}">{html.escape(panel["title"])}</div>'
        if panel["type"] == "row"
        else _panel(by_id[panel["id"]])
        for panel in board["panels"]
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(board['title'])}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(board['title'])}<small>contact sheet of the demo - not Grafana</small></h1>"
        f'<p class="means">{html.escape(board["description"])}</p>{_variables(board)}'
        f'<div class="board" style="height:{height * ROW}px;width:{24 * COLUMN}px">{drawn}</div>'
    )


def _variables(board: Json) -> str:
    shown = "".join(
        f"<span><b>{html.escape(variable['label'])}</b>{html.escape(str(variable['current']['text']) or '…')}</span>"
        for variable in board["templating"]["list"]
    )
    return f'<p class="vars">{shown}</p>' if shown else ""


def _place(place: Json) -> str:
    size = (place["x"] * COLUMN, place["y"] * ROW, place["w"] * COLUMN - 6, place["h"] * ROW - 6)
    return "left:{}px;top:{}px;width:{}px;height:{}px".format(*size)


def _panel(answer: Answer) -> str:
    panel = answer.panel
    if answer.error:
        body = f'<div class="error">{html.escape(answer.error)}</div>'
    elif answer.empty:
        body = f'<div class="empty">{html.escape(panel["fieldConfig"]["defaults"]["noValue"])}</div>'
    else:
        width, height = panel["gridPos"]["w"] * COLUMN - 24, panel["gridPos"]["h"] * ROW - 42
        body = _DRAW[panel["type"]](answer, width, height)
    return (
        f'<div class="panel" style="{_place(panel["gridPos"])}" title="{html.escape(panel["description"])}">'
        f'<h2>{html.escape(panel["title"])}</h2><div class="body">{body}</div></div>'
    )


# What a value looks like ----------------------------------------------------------------------------------------------


def shown(value: object, unit: str) -> str:
    """A value in a unit, roughly as Grafana writes it."""
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case bool() | str():
            return str(value)
        case int() | float() | Decimal():
            return _number(float(value), unit)
        case _:
            return str(value)


def _number(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "currencyEUR":
        return f"€{value:,.2f}"
    if value == 0:
        return f"0{_ZERO.get(unit, '')}"
    if unit == "none":
        return f"{value:.10g}"
    suffix = {"ops": " ops/s", "opm": " ops/m"}.get(unit, "")
    for size, name in _SCALES.get(unit, ((1, ""),)):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}{suffix}"
    return f"{value:.4g}{suffix}"


_ZERO = {"s": " s", "d": " days", "bytes": " B", "ops": " ops/s", "opm": " ops/m"}
_SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "s": ((604800, " weeks"), (86400, " days"), (3600, " hours"), (60, " mins"), (1, " s"), (0.001, " ms")),
    "d": ((1, " days"),),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "short": ((1e6, " Mil"), (1e3, " K"), (1, "")),
    "ops": ((1, ""),),
    "opm": ((1, ""),),
    "currencyEUR": ((1, ""),),
}


def _text(panel: Json, value: float, unit: str) -> tuple[str, str]:
    """Text and colour of a value: its mapping, or itself in its unit and the colour of its step."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults["mappings"]:
        if mapping["type"] == "value" and (found := mapping["options"].get(f"{value:g}")):
            return found["text"], COLOURS[found["color"]]
    colour = "text"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return shown(round(value) if defaults.get("decimals") == 0 else value, unit), COLOURS[colour]


def _fixed(panel: Json, name: str) -> str | None:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["id"] == "byRegexp" and re.search(override["matcher"]["options"], name):
            for value in override["properties"]:
                if value["id"] == "color":
                    return COLOURS[value["value"]["fixedColor"]]
    return None


def _units(panel: Json) -> dict[str, str]:
    return {
        override["matcher"]["options"]: value["value"]
        for override in panel["fieldConfig"]["overrides"]
        for value in override["properties"]
        if value["id"] == "unit"
    }


# Panels ---------------------------------------------------------------------------------------------------------------


def _stat(answer: Answer, _width: int, height: int) -> str:
    panel = answer.panel
    background = panel["options"]["colorMode"] == "background"
    named = len(answer.series) > 1
    parts = []
    for name, points in answer.series[:MOST_SERIES]:
        text, colour = _text(panel, points[-1][1], panel["fieldConfig"]["defaults"]["unit"])
        colour = _fixed(panel, name) or colour
        style = f"background:{colour};color:#fff" if background else f"color:{colour}"
        label = f"<small>{html.escape(name)}</small>" if named else ""
        size = "" if height > 90 else "font-size:24px;"
        parts.append(f'<div class="stat" style="{size}{style}">{label}{html.escape(text)}</div>')
    return f'<div class="stats">{"".join(parts)}</div>'


def _bars(answer: Answer, _width: int, _height: int) -> str:
    panel = answer.panel
    unit = panel["fieldConfig"]["defaults"]["unit"]
    most = max((points[-1][1] for _, points in answer.series), default=0) or 1
    parts = []
    for name, points in sorted(answer.series):
        text, colour = _text(panel, points[-1][1], unit)
        colour = _fixed(panel, name) or colour
        parts.append(
            f'<div class="bar"><span>{html.escape(name)}</span><div><i style="width:{points[-1][1] / most * 100:.1f}%;'
            f'background:{colour}"></i></div><b style="color:{colour}">{html.escape(text)}</b></div>'
        )
    return "".join(parts)


def _gauge(answer: Answer, width: int, height: int) -> str:
    panel = answer.panel
    most = max([100.0, *(points[-1][1] for _, points in answer.series)])
    each = width / len(answer.series)
    radius = max([18.0, min(each / 2 - 10, height - 44)])
    arc = 3.14159 * radius
    parts = []
    for index, (name, points) in enumerate(sorted(answer.series)):
        text, colour = _text(panel, points[-1][1], panel["fieldConfig"]["defaults"]["unit"])
        x, y = each * (index + 0.5), min(height - 26, radius + 12)
        path = f"M{x - radius:.0f} {y:.0f}A{radius:.0f} {radius:.0f} 0 0 1 {x + radius:.0f} {y:.0f}"
        parts.append(
            f'<path d="{path}" fill="none" stroke="#22252b" stroke-width="10"/>'
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="10" '
            f'stroke-dasharray="{arc * points[-1][1] / most:.1f} 9999"/>'
            f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="18" text-anchor="middle">'
            f"{html.escape(text)}</text>"
            f'<text x="{x:.0f}" y="{y + 20:.0f}" fill="#ccccdc" font-size="10" text-anchor="middle">'
            f"{html.escape(name[: max(6, int(each / 6))])}</text>"
        )
    return f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'


def _times(series: Iterable[tuple[str, list[tuple[float, float]]]]) -> tuple[float, float]:
    at = [moment for _, points in series for moment, _ in points]
    return min(at), max([*at, min(at) + 1])


def _axis(first: float, last: float, width: int, bottom: int, left: int) -> str:
    return "".join(
        f'<text x="{left + (width - left) * part:.0f}" y="{bottom + 13}" fill="#8a8f98" font-size="10" '
        f'text-anchor="{anchor}">{datetime.fromtimestamp(first + (last - first) * part, UTC):%H:%M:%S}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )


def _series(answer: Answer, width: int, height: int) -> str:
    panel = answer.panel
    unit = panel["fieldConfig"]["defaults"]["unit"]
    legend, left = 34, 64
    bottom = height - legend - 18
    first, last = _times(answer.series)
    values = [value for _, points in answer.series for _, value in points]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    high += (high - low) * 0.05

    def y(value: float) -> float:
        return 4 + (bottom - 4) * (1 - (value - low) / (high - low))

    lines = [
        f'<line x1="{left}" x2="{width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#24272c"/>'
        f'<text x="{left - 6}" y="{y(value) + 4:.1f}" fill="#8a8f98" font-size="10" text-anchor="end">'
        f"{html.escape(shown(value, unit))}</text>"
        for value in (low, (low + high) / 2, high)
    ]
    if panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] != "off":
        lines += [
            f'<line x1="{left}" x2="{width}" y1="{y(step["value"]):.1f}" y2="{y(step["value"]):.1f}" '
            f'stroke="{COLOURS[step["color"]]}" stroke-dasharray="6 4"/>'
            for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            if step["value"] is not None and low <= step["value"] <= high
        ]
    names = []
    for index, (name, points) in enumerate(answer.series[:MOST_SERIES]):
        colour = _fixed(panel, name) or PALETTE[index % len(PALETTE)]
        drawn = " ".join(
            f"{left + (width - left) * (at - first) / (last - first):.1f},{y(value):.1f}" for at, value in points
        )
        if len(points) == 1:
            lines.append(f'<circle cx="{drawn.split(",")[0]}" cy="{drawn.split(",")[1]}" r="2" fill="{colour}"/>')
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        names.append(f'<span><i style="background:{colour}"></i>{html.escape(name or panel["title"])}</span>')
    return (
        f'<svg width="{width}" height="{height - legend}">{"".join(lines)}'
        f'{_axis(first, last, width, bottom, left)}</svg><div class="legend">{"".join(names)}</div>'
    )


def _timeline(answer: Answer, width: int, height: int) -> str:
    panel = answer.panel
    first, last = _times(answer.series)
    left, legend = 150, 24
    each = min(34.0, (height - legend - 18) / len(answer.series))
    lines = []
    used: dict[str, str] = {}
    for index, (name, points) in enumerate(sorted(answer.series)):
        top = index * each
        lines.append(
            f'<text x="{left - 8}" y="{top + each / 2 + 4:.1f}" fill="#ccccdc" font-size="11" text-anchor="end">'
            f"{html.escape(name[-26:])}</text>"
        )
        step = (width - left) * 5 / (last - first)
        for at, value in points:
            text, colour = _text(panel, value, panel["fieldConfig"]["defaults"]["unit"])
            used[text] = colour
            x = left + (width - left) * (at - first) / (last - first)
            lines.append(
                f'<rect x="{x:.1f}" y="{top + 2:.1f}" width="{min(step, width - x) + 0.5:.1f}" '
                f'height="{each * 0.85:.1f}" fill="{colour}"/>'
            )
    bottom = int(len(answer.series) * each)
    names = "".join(f'<span><i style="background:{colour}"></i>{text}</span>' for text, colour in used.items())
    return (
        f'<svg width="{width}" height="{height - legend}">{"".join(lines)}{_axis(first, last, width, bottom, left)}'
        f'</svg><div class="legend" style="height:20px">{names}</div>'
    )


def _heatmap(answer: Answer, width: int, height: int) -> str:
    """Buckets made single, as Grafana does with the format `heatmap`."""
    ordered = sorted(answer.series, key=lambda one: float(one[0]))
    first, last = _times(ordered)
    left, bottom = 60, height - 18
    each = bottom / len(ordered)
    below: dict[float, float] = {}
    cells = []
    for index, (name, points) in enumerate(ordered):
        for at, value in points:
            count = value - below.get(at, 0)
            below[at] = value
            cells.append((index, name, at, count))
    most = max(count for *_, count in cells) or 1
    step = (width - left) * 5 / (last - first)
    drawn = "".join(
        f'<rect x="{left + (width - left) * (at - first) / (last - first):.1f}" y="{bottom - (index + 1) * each:.1f}" '
        f'width="{step:.1f}" height="{each - 1:.1f}" fill="#ff9830" fill-opacity="{(count / most) ** 0.5:.2f}"/>'
        for index, _, at, count in cells
        if count > 0
    )
    names = "".join(
        f'<text x="{left - 6}" y="{bottom - index * each - 3:.1f}" fill="#8a8f98" font-size="10" text-anchor="end">'
        f"{html.escape(name if name == '+Inf' else shown(float(name), 's'))}</text>"
        for index, (name, _) in enumerate(ordered)
    )
    return f'<svg width="{width}" height="{height}">{drawn}{names}{_axis(first, last, width, bottom, left)}</svg>'


def _table(answer: Answer, _width: int, _height: int) -> str:
    panel = answer.panel
    organize = next((t["options"] for t in panel.get("transformations") or () if t["id"] == "organize"), {})
    columns, rows = _frame(answer, len(panel["targets"]))
    kept = [index for index, column in enumerate(columns) if column not in organize.get("excludeByName", {})]
    renamed = organize.get("renameByName", {})
    units = _units(panel)
    linked = {
        override["matcher"]["options"]
        for override in panel["fieldConfig"]["overrides"]
        for value in override["properties"]
        if value["id"] == "links"
    }
    default = panel["fieldConfig"]["defaults"]["unit"]

    def cell(column: str, value: object) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = html.escape(shown(value, units.get(column, default)))
        return f"<td{' class=n' if number else ''}>{f'<a>{text}</a>' if column in linked else text}</td>"

    names = [renamed.get(columns[index], columns[index]) for index in kept]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(cell(name, row[index]) for name, index in zip(names, kept, strict=True))}</tr>"
        for row in rows[:MOST_ROWS]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _frame(answer: Answer, queries: int) -> tuple[list[str], list[list[Any]]]:
    """Rows of SQL; or of series, those with the same labels merged to one."""
    if answer.frames:
        return list(answer.frames[0].columns), [list(row) for row in answer.frames[0].rows]
    labels = sorted({name for one in answer.labels for name in one if name})
    values = [f"Value #{chr(ord('A') + index)}" for index in range(queries)] if queries > 1 else ["Value"]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for one, (_, points) in zip(answer.labels, answer.series, strict=True):
        key = tuple(one.get(name, "") for name in labels)
        rows.setdefault(key, {})[f"Value #{one['']}" if queries > 1 else "Value"] = points[-1][1]
    return [*labels, *values], [[*key, *(row.get(value) for value in values)] for key, row in sorted(rows.items())]


_DRAW = {
    "stat": _stat,
    "bargauge": _bars,
    "gauge": _gauge,
    "timeseries": _series,
    "state-timeline": _timeline,
    "heatmap": _heatmap,
    "table": _table,
}
