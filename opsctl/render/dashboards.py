"""From a board to Grafana's JSON, in the classic schema, which Grafana 13 still provisions from files; v2 it does not.

The same board always gives the same text. The SDK knows the field's names; ids and places on the grid are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import bargauge, common, gauge, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models.prometheus import Dataquery, PromQueryFormat, QueryEditorMode

from opsctl.render import variables
from opsctl.render.board import Board, Colour, Look, Panel, Prom, Source, Sql
from opsctl.render.postgres_query import PostgresQuery
from opslib.alerting import Unit

WIDTH = 24
"""Columns of Grafana's grid."""

ANNOTATIONS = (
    (
        "Incidents",
        Colour.BAD,
        'ALERTS{alertstate="firing",severity="page"}',
        "{{alertname}}",
    ),
    (
        "Deploys",
        Colour.BUSY,
        # Whatever a deploy replaces begins anew: the application, or a build of ours.
        (
            "increase(bitloot_app_restarts_total[1m]) > 0"
            " or (ops_build_info unless on (version, commit) ops_build_info offset 5m)"
        ),
        "application or exporter restarted {{version}}",
    ),
)

_LAST = common.ReduceDataOptions(values=False, calcs=["lastNotNull"], fields="")


def dashboard(board: Board) -> str:
    """The text of a board's file."""
    made = grafana.Dashboard(
        uid=board.uid,
        title=board.title,
        description=board.means,
        tags=["bitloot", "generated"],
        timezone="utc",
        editable=False,
        graph_tooltip=grafana.DashboardCursorSync.CROSSHAIR,
        time=grafana.DashboardDashboardTime(from_val=f"now-{board.span}", to="now"),
        timepicker=grafana.TimePickerConfig(refresh_intervals=["15s", "1m", "5m", "15m", "1h"]),
        refresh=board.refresh,
        panels=list(_placed(board)),
        templating=grafana.DashboardDashboardTemplating([variables.model(variable) for variable in board.variables]),
        annotations=grafana.AnnotationContainer([_annotation(*one) for one in ANNOTATIONS]),
        links=[
            grafana.DashboardLink(
                title="Boards",
                type_val=grafana.DashboardLinkType.DASHBOARDS,
                tags=["bitloot"],
                as_dropdown=True,
                keep_time=True,
            )
        ],
    )
    return json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _annotation(name: str, colour: Colour, expr: str, title: str) -> grafana.AnnotationQuery:
    return grafana.AnnotationQuery(
        name=name,
        datasource=variables.data_source(Source.PROMETHEUS),
        icon_color=colour,
        expr=expr,
        title_format=title,
        step="60s",
    )


def _placed(board: Board) -> Iterator[grafana.Panel | grafana.RowPanel]:
    """Every row and panel with its place, left to right and down, and its number, which is its order."""
    number, y = 0, 0
    for row in board.rows:
        number += 1
        yield grafana.RowPanel(title=row.title, id_val=number, grid_pos=grafana.GridPos(1, WIDTH, 0, y))
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, grafana.GridPos(panel.height, panel.width, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: grafana.GridPos) -> grafana.Panel:
    options, custom = _LOOKS[panel.look](panel)
    first = panel.queries[0]
    return grafana.Panel(
        type_val=panel.look,
        id_val=number,
        grid_pos=place,
        title=panel.title,
        description=panel.means,
        datasource=variables.data_source(first.source if isinstance(first, Sql) else Source.PROMETHEUS),
        targets=[_target(panel, query, chr(ord("A") + index)) for index, query in enumerate(panel.queries)],
        options=options,
        field_config=grafana.FieldConfigSource(
            defaults=grafana.FieldConfig(
                unit=panel.unit,
                no_value=panel.empty,
                # Half an e-mail is what `increase` makes of one.
                decimals=0 if panel.unit is Unit.COUNT and panel.look in (Look.STAT, Look.BARS, Look.GAUGE) else None,
                min_val=0 if panel.look in (Look.GAUGE, Look.BARS) else None,
                color=grafana.FieldColor(mode=_colour_mode(panel)),
                thresholds=grafana.ThresholdsConfig(
                    grafana.ThresholdsMode.ABSOLUTE,
                    [
                        grafana.Threshold(None, Colour.QUIET),
                        *(grafana.Threshold(value, colour) for value, colour in panel.steps),
                    ],
                ),
                mappings=_mappings(panel),
                custom=custom,
            ),
            overrides=_overrides(panel),
        ),
        transformations=_transformations(panel),
    )


def _target(panel: Panel, query: Prom | Sql, ref: str) -> Dataquery | PostgresQuery:
    if isinstance(query, Sql):
        return PostgresQuery(query.source, query.text, ref)
    # A number or a bar shows now; only what has a past asks for it. A stat's little line is its past.
    now = panel.look in (Look.TABLE, Look.BARS, Look.GAUGE)
    formats = {Look.TABLE: PromQueryFormat.TABLE, Look.HEATMAP: PromQueryFormat.HEATMAP}
    return Dataquery(
        datasource=variables.data_source(Source.PROMETHEUS),
        editor_mode=QueryEditorMode.CODE,
        expr=query.expr,
        format_val=formats.get(panel.look, PromQueryFormat.TIME_SERIES),
        instant=now,
        range_val=not now,
        legend_format=query.legend or "__auto",
        ref_id=ref,
    )


def _colour_mode(panel: Panel) -> grafana.FieldColorModeId:
    if panel.look in (Look.SERIES, Look.HEATMAP):
        return grafana.FieldColorModeId.PALETTE_CLASSIC_BY_NAME
    return grafana.FieldColorModeId.THRESHOLDS


def _mappings(panel: Panel) -> list[grafana.ValueMapping]:
    nothing = grafana.SpecialValueMap(
        grafana.DashboardSpecialValueMapOptions(
            grafana.SpecialValueMatch.NULL_AND_NAN, grafana.ValueMappingResult(text=panel.empty, color=Colour.QUIET)
        )
    )
    words = {
        value: grafana.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(panel.words.items())
    }
    shown = panel.look in (Look.STAT, Look.GAUGE, Look.BARS)
    return [*([grafana.ValueMap(words)] if words else []), *([nothing] if shown else [])]


def _overrides(panel: Panel) -> list[grafana.DashboardFieldConfigSourceOverrides]:
    by_column: dict[str, list[grafana.DynamicConfigValue]] = {}
    for column, unit in panel.units.items():
        by_column.setdefault(column, []).append(grafana.DynamicConfigValue("unit", unit))
    for link in panel.links:
        one = {"title": link.title, "url": link.url, "targetBlank": False}
        properties = by_column.setdefault(link.column, [])
        known = next((value for value in properties if value.id_val == "links"), None)
        if known is None:
            known = grafana.DynamicConfigValue("links", [])
            properties.append(known)
        known.value = [*_list(known.value), one]
    overrides = [
        grafana.DashboardFieldConfigSourceOverrides(
            matcher=grafana.MatcherConfig("byName", column), properties=properties
        )
        for column, properties in by_column.items()
    ]
    return overrides + [
        grafana.DashboardFieldConfigSourceOverrides(
            matcher=grafana.MatcherConfig("byRegexp", pattern),
            properties=[grafana.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})],
        )
        for pattern, colour in panel.colours.items()
    ]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _transformations(panel: Panel) -> list[grafana.DataTransformerConfig] | None:
    """A table of Prometheus shows its labels and the value; neither time nor what was scraped where."""
    if panel.look is not Look.TABLE:
        return None
    hidden = dict.fromkeys(panel.hidden, True)
    if all(isinstance(query, Prom) for query in panel.queries):
        hidden |= dict.fromkeys(("Time", "__name__", "job"), True)
    if not hidden and not panel.names:
        return None
    merged = [grafana.DataTransformerConfig(id_val="merge", options={})] if len(panel.queries) > 1 else []
    organize = {"excludeByName": hidden, "indexByName": {}, "renameByName": dict(panel.names)}
    return [*merged, grafana.DataTransformerConfig(id_val="organize", options=organize)]


def _stat(panel: Panel) -> tuple[object, None]:
    mode = common.BigValueColorMode.VALUE if not panel.words else common.BigValueColorMode.BACKGROUND
    return (
        stat.Options(
            graph_mode=common.BigValueGraphMode.AREA if not panel.words else common.BigValueGraphMode.NONE,
            color_mode=mode,
            justify_mode=common.BigValueJustifyMode.AUTO,
            text_mode=common.BigValueTextMode.VALUE
            if len(panel.queries) == 1
            else common.BigValueTextMode.VALUE_AND_NAME,
            reduce_options=_LAST,
            orientation=common.VizOrientation.AUTO,
        ),
        None,
    )


def _series(panel: Panel) -> tuple[object, object]:
    alarming = any(colour in (Colour.BAD, Colour.WATCH) for _, colour in panel.steps)
    style = common.GraphThresholdsStyleMode.DASHED if alarming else common.GraphThresholdsStyleMode.OFF
    return (
        timeseries.Options(legend=_legend(shown=True), tooltip=_tooltip()),
        timeseries.FieldConfig(
            draw_style=common.GraphDrawStyle.LINE,
            line_width=1,
            fill_opacity=8,
            show_points=common.VisibilityMode.AUTO,
            axis_soft_min=0,
            # A gap is a fact; two missed scrapes are none.
            span_nulls=30_000,
            thresholds_style=common.GraphThresholdsStyleConfig(style),
        ),
    )


def _bars(_: Panel) -> tuple[object, None]:
    return (
        bargauge.Options(
            display_mode=common.BarGaugeDisplayMode.BASIC,
            value_mode=common.BarGaugeValueMode.COLOR,
            name_placement=common.BarGaugeNamePlacement.LEFT,
            sizing=common.BarGaugeSizing.AUTO,
            reduce_options=_LAST,
            orientation=common.VizOrientation.HORIZONTAL,
            legend=_legend(shown=False),
        ),
        None,
    )


def _gauge(_: Panel) -> tuple[object, None]:
    return gauge.Options(
        sizing=common.BarGaugeSizing.AUTO, reduce_options=_LAST, orientation=common.VizOrientation.AUTO
    ), None


def _heatmap(panel: Panel) -> tuple[object, object]:
    return (
        heatmap.Options(
            calculate=False,
            y_axis=heatmap.YAxisConfig(unit=panel.unit, axis_placement=common.AxisPlacement.LEFT),
            legend=heatmap.HeatmapLegend(show=True),
            tooltip=heatmap.HeatmapTooltip(mode=common.TooltipDisplayMode.SINGLE),
            exemplars=heatmap.ExemplarConfig(color="rgba(255,0,255,0.7)"),
            show_value=common.VisibilityMode.NEVER,
            rows_frame=heatmap.RowsHeatmapOptions(layout=common.HeatmapCellLayout.LE),
        ),
        heatmap.FieldConfig(),
    )


def _timeline(_: Panel) -> tuple[object, object]:
    return (
        statetimeline.Options(
            show_value=common.VisibilityMode.NEVER,
            align_value=common.TimelineValueAlignment.LEFT,
            legend=_legend(shown=True),
            tooltip=_tooltip(),
        ),
        statetimeline.FieldConfig(fill_opacity=80),
    )


def _table(_: Panel) -> tuple[object, object]:
    options = table.Options(show_header=True, cell_height=common.TableCellHeight.SM)
    options.footer = None  # the SDK's; Grafana 12 has it among a field's own settings
    return (
        options,
        common.TableFieldOptions(align=common.FieldTextAlignment.AUTO, inspect=True),
    )


def _legend(*, shown: bool) -> common.VizLegendOptions:
    return common.VizLegendOptions(
        display_mode=common.LegendDisplayMode.LIST,
        placement=common.LegendPlacement.BOTTOM,
        show_legend=shown,
        calcs=[],
    )


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions(mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING)


_LOOKS: Mapping[Look, Callable[[Panel], tuple[Any, Any]]] = {
    Look.STAT: _stat,
    Look.SERIES: _series,
    Look.BARS: _bars,
    Look.GAUGE: _gauge,
    Look.HEATMAP: _heatmap,
    Look.TIMELINE: _timeline,
    Look.TABLE: _table,
}
