"""The contract's declarations: an adapter is whole, a missing column is named, a scan deep in a plan is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.contract import adapter, canonical, check
from opslib.errors import ContractError


def rows() -> list[dict[str, str]]:
    """What `contract_columns` answers when everything is there."""
    return [
        {"view": view, "column": column, "type": min(types) if types else "whatever_enum"}
        for view, columns in canonical.VIEWS.items()
        for column, types in columns.items()
    ]


def test_whole_contract_has_no_problem() -> None:
    """Every view, column and type present: nothing to say; an extra column is nobody's business."""
    extra = {"view": "orders", "column": "extra", "type": "jsonb"}
    assert canonical.problems([*rows(), extra]) == []


def test_each_gap_is_named() -> None:
    """A missing view, a missing column and a changed type are three phrases."""
    live = [
        row if (row["view"], row["column"]) != ("orders", "created_at") else {**row, "type": "date"}
        for row in rows()
        if row["view"] != "flags" and row["column"] != "confirmations"
    ]
    assert canonical.problems(live) == [
        "column orders.created_at is date, not timestamp with time zone",
        "column payments.confirmations is missing",
        "view flags is missing",
    ]


def test_nothing_live_names_every_view() -> None:
    """While the contract is suspended every view is missing."""
    assert len(canonical.problems([])) == len(canonical.VIEWS)


def test_adapter_has_every_view_once() -> None:
    """BitLoot's adapter is whole: views, functions, grants, values with what they may be, big tables."""
    bitloot = adapter.load()
    assert sorted(block.name for block in bitloot.of("view")) == sorted(canonical.VIEWS)
    assert {block.name for block in bitloot.of("values") if block.known} >= {"orders.status", "payments.status"}
    assert {"orders", "webhook_logs"} <= bitloot.big
    assert bitloot.name == "bitloot"


def test_adapter_without_a_view_is_refused(tmp_path: Path) -> None:
    """An adapter that forgets a view says so when it is read, not when a query fails."""
    path = tmp_path / "shop.sql"
    path.write_text(adapter.DEFAULT.read_text().replace("-- view: flags\n", "-- function: flags\n"))
    with pytest.raises(ContractError, match=r"shop\.sql: its views are .*it needs .*flags"):
        adapter.load(path)


def test_scan_below_a_join_is_found() -> None:
    """A sequential scan is found in any branch of a plan; an index scan is none."""
    plan = [
        {
            "Plan": {
                "Node Type": "Nested Loop",
                "Plans": [
                    {"Node Type": "Index Scan", "Relation Name": "orders"},
                    {"Node Type": "Gather", "Plans": [{"Node Type": "Seq Scan", "Relation Name": "payments"}]},
                ],
            }
        }
    ]
    assert check.scanned(plan) == {"payments"}
