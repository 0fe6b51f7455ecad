"""The application's own counters, as prom-client keeps and prints them: in memory, absent until the first event."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

HELP = {
    "invalid_hmac_count": "Webhook calls with a bad signature",
    "duplicate_webhook_count": "Webhook calls seen before",
    "email_send_failed": "E-mails not sent",
    "email_send_success": "E-mails sent",
    "underpaid_orders_total": "Underpaid orders",
    "otp_rate_limit_exceeded": "One-time codes refused",
    "otp_verification_failed": "One-time codes wrong",
}

LATENCY_BUCKETS_MS = (50, 100, 250, 500, 1000, 2500)


class AppMetrics:
    """The counters of one application.

    Attributes:
        readings: How many pages were served since the last event was counted.
    """

    def __init__(self) -> None:
        self.readings = 0
        self._started = time.time()
        self._counters: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._latency: dict[str, list[float]] = {}
        self._open = asyncio.Event()
        self._open.set()

    async def count(self, name: str, **labels: str) -> None:
        """Add one; waits while the application is about to restart."""
        await self._open.wait()
        self._counters[name, tuple(labels.items())] += 1
        self.readings = 0

    async def email(self, kind: str, *, sent: bool, milliseconds: float) -> None:
        """An e-mail went out, or did not."""
        await self.count("email_send_success" if sent else "email_send_failed", type=kind)
        self._latency.setdefault(kind, []).append(milliseconds)

    def hold(self) -> None:
        """Count nothing until `restart`: events wait. What a restart destroys unread, nobody can ever count."""
        self._open.clear()

    def restart(self) -> None:
        """The process is a new one: all counters are gone."""
        self._started = time.time()
        self._counters.clear()
        self._latency.clear()
        self._open.set()

    def page(self) -> str:
        """The page."""
        self.readings += 1
        lines = [
            "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started:.3f}",
            "# HELP nodejs_version_info Node.js version info.",
            "# TYPE nodejs_version_info gauge",
            'nodejs_version_info{version="v20.11.0",major="20",minor="11",patch="0"} 1',
        ]
        for name in sorted({name for name, _ in self._counters}):
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} counter"]
            lines += [f"{name}{_labels(ls)} {count}" for (n, ls), count in self._counters.items() if n == name]
        if self._latency:
            lines += ["# HELP email_send_latency_ms Time to send", "# TYPE email_send_latency_ms histogram"]
        for kind, seen in self._latency.items():
            for bound in (*LATENCY_BUCKETS_MS, float("inf")):
                le = "+Inf" if bound == float("inf") else str(bound)
                below = sum(value <= bound for value in seen)
                lines.append(f"email_send_latency_ms_bucket{_labels((('le', le), ('type', kind)))} {below}")
            lines.append(f"email_send_latency_ms_sum{_labels((('type', kind),))} {sum(seen):.3f}")
            lines.append(f"email_send_latency_ms_count{_labels((('type', kind),))} {len(seen)}")
        return "\n".join(lines) + "\n"


def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs) + "}" if pairs else ""
