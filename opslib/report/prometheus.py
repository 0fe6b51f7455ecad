"""Prometheus, asked a few questions: what fired, how long providers took, how much of a promise was broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx

from opslib.errors import SourceError

TIMEOUT = 10.0
STEP = 300
"""Seconds between two looks at a day's alerts: 288 of them."""

_BUDGET = re.compile(r"slo:(?P<name>\w+):error_ratio_3d > (?P<share>[0-9.e-]+)")

Series = tuple[dict[str, str], list[tuple[float, float]]]


class Prometheus:
    """Its HTTP API.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def _ask(self, path: str, **parameters: str) -> Any:
        try:
            # No proxy of the environment: whom we talk to is a setting.
            with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
                answer = client.get(f"{self._url}/api/v1/{path}", params=parameters)
            body = answer.json()
            if body["status"] != "success":
                raise SourceError(f"Prometheus answered {answer.status_code}; ask it `{path}` by hand")
            return body["data"]
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            # Not chained: its text may hold the URL, and that a password.
            raise SourceError(f"Prometheus cannot be reached ({type(exc).__name__}); check PROMETHEUS_URL") from None
        except (ValueError, KeyError, TypeError):
            raise SourceError("Prometheus answered something else than documented; check PROMETHEUS_URL") from None

    def instant(self, query: str, at: datetime) -> list[tuple[dict[str, str], float]]:
        """A vector at a moment.

        Raises:
            SourceError: It is away, or answered nonsense.
        """
        found = self._ask("query", query=query, time=f"{at.timestamp():.3f}")
        return [(dict(each["metric"]), float(each["value"][1])) for each in found["result"]]

    def fired(self, since: datetime, until: datetime) -> list[tuple[dict[str, str], datetime, datetime]]:
        """Every alert that fired within a span: its labels, when it was first and last seen, in steps of five minutes.

        Raises:
            SourceError: See `instant`.
        """
        query = 'ALERTS{alertstate="firing",severity!="heartbeat"}'
        found = self._ask(
            "query_range",
            query=query,
            start=f"{since.timestamp():.0f}",
            end=f"{until.timestamp():.0f}",
            step=str(STEP),
        )
        zone = since.tzinfo
        return [
            (
                dict(each["metric"]),
                datetime.fromtimestamp(float(each["values"][0][0]), zone),
                datetime.fromtimestamp(float(each["values"][-1][0]), zone),
            )
            for each in found["result"]
            if each["values"]
        ]

    def budgets(self) -> dict[str, float]:
        """The share of failures each objective allows, as the rules of its slow burn say: a factor of one.

        Raises:
            SourceError: See `instant`.
        """
        return dict(self._budgets(self._ask("rules", type="alert")))

    @staticmethod
    def _budgets(rules: Any) -> Iterator[tuple[str, float]]:
        for group in rules["groups"]:
            for rule in group["rules"]:
                for match in _BUDGET.finditer(rule.get("query", "")):
                    yield match["name"], float(match["share"])
