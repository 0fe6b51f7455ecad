"""Are the feature flags as the file declares them, and does anybody still compare?

Invariant: flag-sync went through within minutes, the file is whole, no flag differs that nobody meant to differ.
Source: what the job `flag-sync` remembers in schema `ops`. Who changed a flag is no label: `opsctl flags diff` says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

from exporters.signals import flags as signals
from opslib.areas.flag_plan import State
from opslib.areas.queries import NAMED
from opslib.collector import Collector
from opslib.database_collector import DatabaseCollector
from opslib.postgres import Database
from opslib.settings import Settings
from opslib.spec import Gauge, Sample, Subject

FLAGS = Gauge("ops_flags", "Flags by how they stood at the last sync.", ("state",))
DRIFT = Gauge("ops_flag_drift", "1 if a declared flag was changed by hand and left so, else 0.", ("flag",))
SYNCED = Gauge("ops_flags_synced_timestamp_seconds", "When flag-sync last went through, Unix time.")
VALID = Gauge("ops_flags_file_valid", "1 if the flag file could be used at the last try, 0 if not.")
EXPIRY = Gauge(
    "ops_flag_expiry_timestamp_seconds",
    "When a flag's last day is over, Unix time; by then it should be gone from the code. Absent without such a day.",
    ("flag",),
)
OVERRIDE = Gauge(
    "ops_flag_override_until_timestamp_seconds",
    "Until when a value holds instead of the file's, Unix time; absent without an override.",
    ("flag",),
)

REFRESH_SECONDS = 15.0


class Flags(DatabaseCollector):
    """The flags as flag-sync left them.

    Args:
        ops: The database of schema `ops`.
    """

    name = "flags"

    def __init__(self, ops: Database) -> None:
        super().__init__(ops, REFRESH_SECONDS)

    async def collect(self) -> Sequence[Sample]:
        """Read what is remembered; before the first sync there is nothing to say."""
        syncs = await self._database.rows(NAMED["flag_sync"].sql)
        overrides = await self._database.rows(NAMED["flag_overrides"].sql)
        samples = [VALID(not row["errors"]) for row in syncs]
        samples += [OVERRIDE(row["until"].timestamp(), flag=row["key"]) for row in overrides]
        if not syncs or syncs[0]["synced_at"] is None:
            return samples
        flags = await self._database.rows(NAMED["flag_states"].sql)
        samples.append(SYNCED(syncs[0]["synced_at"].timestamp()))
        samples += [FLAGS(sum(flag["state"] == state for flag in flags), state=state) for state in State]
        for flag in flags:
            if flag["state"] != State.UNDECLARED:
                samples.append(DRIFT(flag["state"] == State.DRIFT, flag=flag["key"]))
            if flag["expires_on"] is not None:
                over = datetime.combine(flag["expires_on"], time(), UTC) + timedelta(days=1)
                samples.append(EXPIRY(over.timestamp(), flag=flag["key"]))
        return samples


def collectors(settings: Settings) -> list[Collector]:
    """One."""
    return [Flags(Database(settings.require_ops(), application_name="opsctl flags", read_only=True))]


SUBJECT = Subject(
    name="flags",
    title="Feature flags",
    needs=("DATABASE_URL",),
    metrics=(FLAGS, DRIFT, SYNCED, VALID, EXPIRY, OVERRIDE),
    collectors="exporters.flags:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
    board="audit",
)
