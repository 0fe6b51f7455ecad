"""Does the application's database still offer the canonical views?

Invariant: every view and column of the contract is there, except while a deployment suspends it.
Source: the catalog (`opslib/contract/canonical.py`); the full proof is `opsctl contract check`.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from exporters.reconciliation import Present
from opslib.areas.queries import NAMED
from opslib.contract import canonical
from opslib.spec import Gauge, Sample

log = structlog.get_logger()

CONTRACT_OK = Gauge("ops_contract_ok", "1 if every canonical view and column is there, 0 if not.")
METRICS = (CONTRACT_OK,)


class Contract(Present):
    """The views, by name, column and type."""

    name = "ledger/contract"
    _said: Sequence[str] = ()

    async def collect(self) -> Sequence[Sample]:
        """Compare; what is wrong is logged when it changes."""
        problems = canonical.problems(await self._app.rows(NAMED["contract_columns"].sql))
        if problems and problems != self._said:
            log.warning("contract_broken", problems=problems[:5], more=max(0, len(problems) - 5))
        self._said = problems
        return [CONTRACT_OK(not problems)]
