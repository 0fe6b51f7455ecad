"""Ways in which a board, a registry or a database goes wrong, each of which some check must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from tests.boards.checks import Known
from tests.boards.model import Json, panels

Boards = dict[str, Json]


def _panel(boards: Boards, board: str, title: str) -> Json:
    return next(panel for panel in panels(boards[board]) if panel["title"] == title)


def _replaced(boards: Boards, board: str, title: str, old: str, new: str) -> None:
    target = _panel(boards, board, title)["targets"][0]
    key = "expr" if "expr" in target else "rawSql"
    assert old in target[key], f"there is no {old} in {title} any more"
    target[key] = target[key].replace(old, new)


def _variable(boards: Boards, board: str, name: str) -> None:
    listed = boards[board]["templating"]["list"]
    boards[board]["templating"]["list"] = [variable for variable in listed if variable["name"] != name]


@dataclass(frozen=True, slots=True)
class InJson:
    """A board spoiled by hand.

    Attributes:
        name: What was done.
        says: A part of what the check says.
        spoil: Does it.
    """

    name: str
    says: str
    spoil: Callable[[Boards], object]


@dataclass(frozen=True, slots=True)
class InRegistry:
    """A metric an exporter does not have any more, under this name."""

    name: str
    says: str
    metric: str


@dataclass(frozen=True, slots=True)
class InDatabase:
    """A database changed under the boards' feet."""

    name: str
    says: str
    statement: str


MUTANTS: tuple[InJson | InRegistry | InDatabase, ...] = (
    InRegistry("rename a metric in its exporter", "no exporter has bitloot_underpaid_total", "bitloot_underpaid_total"),
    InJson(
        "misspell a metric",
        "no exporter has bitloot_ipns_total",
        lambda b: _replaced(b, "fulfilment", "IPN OK / Invalid (5m)", "bitloot_ipn_total", "bitloot_ipns_total"),
    ),
    InJson(
        "misspell a label",
        "bitloot_ipn_total has no label state",
        lambda b: _replaced(b, "fulfilment", "IPN OK / Invalid (5m)", "status=", "state="),
    ),
    InJson(
        "break PromQL",
        "no PromQL",
        lambda b: _replaced(b, "fulfilment", "Underpaid (today)", "))", ")"),
    ),
    InJson(
        "show a counter itself",
        "only grows",
        lambda b: _panel(b, "fulfilment", "Underpaid (today)")["targets"][0].update(expr="bitloot_underpaid_total"),
    ),
    InJson(
        "misspell a column",
        "42703",
        lambda b: _replaced(b, "records", "Orders", "o.total_eur AS total", "o.total_usd AS total"),
    ),
    InJson(
        "rename a column that carries a link",
        "no column order_id",
        lambda b: _replaced(b, "records", "Payments", "SELECT * FROM", "SELECT payment_id, created_at FROM"),
    ),
    InJson(
        "page without end",
        "rows",
        lambda b: _replaced(b, "records", "Payments", "100", "1000"),
    ),
    InJson(
        "ask for a time series of text",
        "otherwise than as a table",
        lambda b: _panel(b, "records", "Orders")["targets"][0].update(format="time_series"),
    ),
    InJson(
        "leave out the quotes",
        "without its quotes",
        lambda b: _replaced(b, "order", "Keys handed out", "${order:sqlstring}", "'${order}'"),
    ),
    InJson("remove a variable", "no variable queue", lambda b: _variable(b, "fulfilment", "queue")),
    InJson(
        "remove a description", "has no description", lambda b: _panel(b, "queues", "Jobs ended").pop("description")
    ),
    InJson(
        "colour what is not known",
        "colours what is not known",
        lambda b: _panel(b, "overview", "API")["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(color="red"),
    ),
    InJson(
        "number a panel twice",
        "is there 2 times",
        lambda b: _panel(b, "queues", "Jobs ended").update(id=_panel(b, "queues", "Paused queues")["id"]),
    ),
    InJson(
        "ask a data source nobody provisions",
        "is provisioned",
        lambda b: _panel(b, "queues", "Jobs ended")["targets"][0]["datasource"].update(uid="prom"),
    ),
    InJson(
        "refresh too often",
        "refreshes every 5s",
        lambda b: b["records"].update(refresh="5s"),
    ),
    InDatabase("drop a grant", "42501", "REVOKE SELECT ON ops_view.payments FROM ops_grafana"),
    InDatabase(
        "drop a function's grant", "42501", "REVOKE EXECUTE ON FUNCTION ops_view.order_item_ids FROM ops_grafana"
    ),
    InDatabase("rename a view's column", "42703", "ALTER VIEW ops_view.job_runs RENAME COLUMN queued TO queued_at"),
    InDatabase("drop a view", "42P01", "DROP VIEW ops_view.audit_log"),
)


def changed(dsn: str, mutant: InDatabase) -> None:
    """Do it to a database."""
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute(mutant.statement.encode())


def without(names: Known, mutant: InRegistry) -> Known:
    """The registry without it."""
    assert mutant.metric in names
    return {name: labels for name, labels in names.items() if name != mutant.metric}


def caught(found: Iterator[str], says: str) -> bool:
    """Whether a check says so."""
    return any(says in problem for problem in found)
