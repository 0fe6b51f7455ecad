"""A board's variables, and the data sources they and its panels ask."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
    VariableType,
)

from opsctl.render.board import Choice, Pick, Source, Sql, TextBox, Variable
from opsctl.render.postgres_query import PLUGIN

INTERVALS: dict[str, Any] = {"auto": None, "auto_min": None, "auto_count": None}
"""The SDK gives each variable what only an interval has."""
ALL = VariableOption(selected=True, text="All", value="$__all")


def data_source(source: Source) -> DataSourceRef:
    """The reference to a provisioned data source."""
    return DataSourceRef(type_val="prometheus" if source is Source.PROMETHEUS else PLUGIN, uid=source)


def model(variable: Variable) -> VariableModel:
    """A variable as Grafana keeps it."""
    match variable:
        case TextBox():
            return _box(variable)
        case Choice():
            return _choice(variable)
        case Pick():
            return _pick(variable)


def _box(variable: TextBox) -> VariableModel:
    return VariableModel(
        **INTERVALS,
        type_val=VariableType.TEXTBOX,
        name=variable.name,
        label=variable.label,
        description=variable.means,
        hide=VariableHide.DONT_HIDE,
        query="",
        current=VariableOption(selected=True, text="", value=""),
        options=[VariableOption(selected=True, text="", value="")],
    )


def _choice(variable: Choice) -> VariableModel:
    asked = variable.query
    sql = isinstance(asked, Sql)
    return VariableModel(
        **INTERVALS,
        type_val=VariableType.QUERY,
        name=variable.name,
        label=variable.label,
        description=variable.means,
        hide=VariableHide.DONT_HIDE,
        datasource=data_source(asked.source if isinstance(asked, Sql) else Source.PROMETHEUS),
        query=asked.text if isinstance(asked, Sql) else {"qryType": 1, "query": asked.expr, "refId": variable.name},
        refresh=VariableRefresh.ON_DASHBOARD_LOAD if sql else VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=VariableSort.ALPHABETICAL_ASC,
        include_all=True,
        # Taken as it stands, unlike a value chosen or typed: those are quoted where they are used.
        all_value=variable.any,
        allow_custom_value=False,
        current=ALL,
        options=[],
        regex="",
    )


def _pick(variable: Pick) -> VariableModel:
    first = VariableOption(selected=True, text=variable.values[0], value=variable.values[0])
    return VariableModel(
        **INTERVALS,
        type_val=VariableType.CUSTOM,
        name=variable.name,
        label=variable.label,
        description=variable.means,
        hide=VariableHide.DONT_HIDE,
        query=",".join(variable.values),
        include_all=bool(variable.any),
        all_value=variable.any or None,
        allow_custom_value=False,
        current=ALL if variable.any else first,
        options=[
            VariableOption(selected=not variable.any and value == variable.values[0], text=value, value=value)
            for value in variable.values
        ],
    )
