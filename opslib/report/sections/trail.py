"""What is kept and who did what: backups, flags, the audit, alerts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from opslib.areas import backups
from opslib.areas.backups import Kind
from opslib.report.charts import Spark
from opslib.report.model import Column, Finding, Level, Section, table
from opslib.report.sources import SETTLE, Period, Sources, reading
from opslib.shown import words

TREND_DAYS = 56
JOB = "backup-database"


def listing(sources: Sources) -> list[dict[str, Any]]:
    """Every backup with its proofs, newest first.

    Raises:
        OpsError: The bucket or the proofs cannot be read.
    """
    found = sources.once("backups", lambda: backups.listing(sources.storage()))
    checks = {
        (row["key"], row["kind"]): row for row in sources.once("checks", lambda: sources.rows("backup_checks_last"))
    }
    rows = []
    for each in reversed(found):
        verified, drilled = (checks.get((each.key, kind)) for kind in (Kind.VERIFY, Kind.DRILL))
        proofs = [check for check in (verified, drilled) if check]
        state = "unproven" if not proofs else "verified" if all(check["ok"] for check in proofs) else "failed"
        rows.append(
            {
                "key": each.key,
                "at": each.at,
                "written": each.written,
                "size": each.stored.size,
                "state": state,
                "verified_at": verified and verified["checked_at"],
                "drilled_at": drilled and drilled["checked_at"],
                "drill_seconds": drilled and round(drilled["seconds"], 1),
                "error": next((check["error"] for check in proofs if check["error"]), None),
            }
        )
    return rows


def backup_section(sources: Sources, period: Period) -> Section:
    """The newest, its proof, how sizes and drills go."""
    section = Section("backups", "Backups", links=[("Backups", "backups.html")])
    with reading(section, "backups"):
        every = listing(sources)
        rows = [row for row in every if row["at"] < period.until]
        if not rows:
            section.findings.append(Finding(Level.BROKEN, "there is no backup"))
        else:
            newest, proven = rows[0], next((row for row in rows if row["state"] == "verified"), None)
            age = sources.generated - every[0]["written"]
            section.lead = f"Newest of the day: {newest['key']}, {newest['size']:,} bytes, {newest['state']}."
            limit = _max_age(sources)
            if limit is not None and age > limit:
                section.findings.append(Finding(Level.BROKEN, f"the newest backup is {words(age)} old"))
            if proven is None:
                section.findings.append(Finding(Level.ATTENTION, "no backup is proven"))
            if newest["state"] == "failed":
                section.findings.append(Finding(Level.BROKEN, "the newest backup failed its proof"))
            trend = list(reversed(rows[:TREND_DAYS]))
            section.charts.append(
                Spark(
                    "sizes",
                    "Size of backups",
                    "Bytes of each backup, oldest first.",
                    [f"{row['at']:%Y-%m-%d}" for row in trend],
                    [row["size"] for row in trend],
                    "B",
                )
            )
    with reading(section, "restore drills"):
        since = period.until - timedelta(days=TREND_DAYS)
        drills = [
            r for r in sources.rows("backup_checks_between", since=since, until=period.until) if r["kind"] == Kind.DRILL
        ]
        if drills:
            section.charts.append(
                Spark(
                    "drills",
                    "Restore drills",
                    "Seconds each restore drill took, oldest first; a failed one is left out.",
                    [f"{row['checked_at']:%Y-%m-%d}" for row in drills],
                    [row["seconds"] if row["ok"] else None for row in drills],
                    "s",
                )
            )
        else:
            section.notes.append(f"No restore drill within {TREND_DAYS} days.")
    return section


def _max_age(sources: Sources) -> timedelta | None:
    """How old the newest may be: what the job declares, and nobody else."""
    declared = sources.once("jobs", lambda: sources.rows("jobs_declared"))
    ages = [row["max_age_seconds"] for row in declared if row["job"] == JOB and row["max_age_seconds"]]
    return timedelta(seconds=ages[0]) if ages else None


def flags(sources: Sources, period: Period) -> Section:
    """What changed, what differs, what holds for a while."""
    section = Section("flags", "Feature flags")
    with reading(section, "flags of the application"):
        live = sources.rows("flags_live")
        changed = [row for row in live if row["changed_at"] and period.since <= row["changed_at"] < period.until]
        columns = (
            Column("key", "Flag"),
            Column("enabled", "Is now"),
            Column("changed_at", "Changed (UTC)"),
            Column("changed_by", "By"),
        )
        section.tables.append(table("Changed on this day", columns, changed, "No flag changed."))
    with reading(section, "flags as they are meant to be"):
        drifting = [row for row in sources.rows("flag_states") if row["state"] in ("drift", "unknown")]
        if drifting:
            names = ", ".join(row["key"] for row in drifting[:5])
            section.findings.append(Finding(Level.ATTENTION, f"flags differ from their file: {names}"))
        overrides = sources.rows("flag_overrides")
        if overrides:
            wanted = (
                Column("key", "Flag"),
                Column("value", "Is"),
                Column("until", "Until (UTC)"),
                Column("set_by", "By"),
            )
            section.tables.append(table("Held instead of the file's value", wanted, overrides))
    return section


def audit(sources: Sources, period: Period) -> Section:
    """Who did what, how often."""
    section = Section("audit", "Audit", links=[("Audit", "audit.html")])
    with reading(section, "the audit"):
        rows = sources.rows("audit_by_actor", since=period.since, until=period.until)
        columns = (
            Column("who", "Who"),
            Column("action", "Action"),
            Column("outcome", "Outcome", state=True),
            Column("events", "Times", number=True),
            Column("last_at", "Last (UTC)"),
        )
        section.tables.append(table("By person and action", columns, rows, "Nobody did anything."))
        (state,) = sources.rows("audit_state", settle=SETTLE * 60)
        if state["unfinished"]:
            section.findings.append(Finding(Level.ATTENTION, f"{state['unfinished']} actions began and never ended"))
    return section


def alerts(sources: Sources, period: Period) -> Section:
    """What fired."""
    section = Section("alerts", "Alerts")
    if sources.prometheus is None:
        section.notes.append("Not asked: PROMETHEUS_URL is not set.")
        return section
    with reading(section, "alerts"):
        fired = sources.prometheus.fired(period.since, period.until)
        rows: list[dict[str, Any]] = [
            {
                "alert": labels.get("alertname", "not named"),
                "severity": labels.get("severity", ""),
                "of": ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k not in SHOWN),
                "from": first,
                "to": last,
            }
            for labels, first, last in sorted(fired, key=lambda each: each[1])
        ]
        columns = (
            Column("alert", "Alert"),
            Column("severity", "Calls"),
            Column("of", "Of"),
            Column("from", "First seen (UTC)"),
            Column("to", "Last seen (UTC)"),
        )
        section.tables.append(table("Fired, looked at every five minutes", columns, rows, "No alert fired."))
        paged = sorted({row["alert"] for row in rows if row["severity"] == "page"})
        others = sorted({row["alert"] for row in rows} - set(paged))
        if paged:
            section.findings.append(Finding(Level.BROKEN, f"alerts called somebody: {', '.join(paged[:5])}"))
        if others:
            section.findings.append(Finding(Level.ATTENTION, f"alerts fired: {', '.join(others[:5])}"))
    return section


SHOWN = frozenset({"__name__", "alertname", "alertstate", "severity"})
