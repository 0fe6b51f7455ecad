"""Does the application's database still offer the canonical views, and the indexes our queries rely on?

Invariant: every view and column of the contract is there, except while a deployment suspends it; every index is.
Source: the catalog (`opslib/contract/canonical.py`, `indexes.py`); the full proof is `opsctl contract check`.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from opslib.areas.queries import NAMED
from opslib.contract import adapter, canonical, indexes
from opslib.contract.indexes import Index
from opslib.database_collector import DatabaseCollector
from opslib.postgres import Database
from opslib.spec import Gauge, Sample

log = structlog.get_logger()

CONTRACT_OK = Gauge("ops_contract_ok", "1 if every canonical view and column is there, 0 if not.")
MISSING_INDEXES = Gauge(
    "ops_contract_missing_indexes",
    "Indexes of the application our queries rely on that are not there; `opsctl contract tune` names them.",
)
METRICS = (CONTRACT_OK, MISSING_INDEXES)


class Contract(DatabaseCollector):
    """The views, by name, column and type; the indexes, by their columns.

    Args:
        app: The application's database.
        seconds: Between two refreshes.
    """

    name = "ledger/contract"
    _said: Sequence[str] = ()

    def __init__(self, app: Database, seconds: float) -> None:
        super().__init__(app, seconds)
        self._wanted = [index for index in adapter.load().indexes if not index.optional]
        self._lacking: frozenset[Index] = frozenset()

    async def collect(self) -> Sequence[Sample]:
        """Compare; what is wrong is logged when it changes."""
        problems = canonical.problems(await self._database.rows(NAMED["contract_columns"].sql))
        if problems and problems != self._said:
            log.warning("contract_broken", problems=problems[:5], more=max(0, len(problems) - 5))
        self._said = problems
        return [CONTRACT_OK(not problems), MISSING_INDEXES(await self._missing())]

    async def _missing(self) -> int:
        """How many indexes are missing. We go on without: dearer for the application's database, and right."""
        parameters = {"tables": indexes.tables(self._wanted)}
        lacking = indexes.missing(self._wanted, await self._database.rows(NAMED["contract_indexes"].sql, parameters))
        for lack in lacking:
            if lack.index not in self._lacking:
                log.warning(
                    "contract_index_missing",
                    problem=lack.problem,
                    needed_by=lack.index.serves,
                    mend=lack.statements,
                    hint="or `opsctl contract tune --apply`",
                )
        self._lacking = frozenset(lack.index for lack in lacking)
        return len(lacking)
