"""The application's own /metrics, read where only it knows.

Invariant: each event the application counted is handed over once, across its restarts and ours; what it counted between
our last reading and its crash is lost with it, and nobody can know.
Source: its counters, in memory and absent until the first event (prom-client), with `process_start_time_seconds`.

Calls of Kinguin that were duplicates or had a wrong secret, and e-mails that failed to be sent, leave no row anywhere.
Their totals go to the ledger, which owns the families they belong to (`opslib/areas/app_totals.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families

from exporters.signals import app as signals
from opslib.areas import app_totals
from opslib.checkpoint import Checkpoint
from opslib.collector import CHECKPOINT_LAG, Collector, Every
from opslib.errors import SourceError
from opslib.settings import Settings
from opslib.spec import Counter, Sample, Subject
from opslib.tally import Key, Tally

RESTARTS = Counter("bitloot_app_restarts_total", "Restarts of the application, seen by its counters beginning anew.")

SECONDS = 10.0
TIMEOUT = 3.0
MAX_BYTES = 4 * 1024 * 1024
START = "process_start_time_seconds"

# The application's counter, for one provider or summed over all its labels -> the total it adds to.
HANDED_OVER: Mapping[tuple[str, str | None], Key] = {
    ("duplicate_webhook_count", "kinguin"): (app_totals.WEBHOOK, ("kinguin", "duplicate")),
    ("invalid_hmac_count", "kinguin"): (app_totals.WEBHOOK, ("kinguin", "invalid")),
    ("email_send_failed", None): (app_totals.EMAIL_FAIL, ()),
}


class App(Collector):
    """Reads the page, adds what grew since the last reading, and remembers both in one checkpoint.

    Args:
        url: The application's /metrics.
        name: The checkpoint's name.
        dsn: The ops database, if any.
    """

    name = "app"
    refresh = Every(SECONDS)

    def __init__(self, url: str, name: str, dsn: str | None) -> None:
        self._url = url
        self._tally = Tally((RESTARTS, app_totals.WEBHOOK, app_totals.EMAIL_FAIL), durable_only=dsn is not None)
        self._checkpoint = Checkpoint(name, dsn, self._tally)
        self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)

    async def collect(self) -> Sequence[Sample]:
        """Read and add. It has no gauges."""
        await self._checkpoint.load()
        self._add(parse(await self._fetch()))
        await self._checkpoint.save()
        return ()

    async def _fetch(self) -> str:
        try:
            async with self._client.stream("GET", self._url) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise SourceError(
                        f"the application's /metrics answered {answer.status_code}; check APP_METRICS_URL"
                    )
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise SourceError(f"the application's /metrics is larger than {MAX_BYTES} bytes")
        except httpx.HTTPError as exc:
            raise SourceError(f"the application's /metrics cannot be read ({type(exc).__name__}); is it up?") from exc
        return body.decode("utf-8", "replace")

    def _add(self, read: Mapping[str, float]) -> None:
        before: Mapping[str, float] = self._checkpoint.position.get("read", {})
        restarted = bool(before) and (
            read.get(START) != before.get(START) or any(read.get(name, 0) < value for name, value in before.items())
        )
        self._tally.add(RESTARTS, amount=restarted)
        base: Mapping[str, float] = {} if restarted else before
        for source, (metric, labels) in HANDED_OVER.items():
            name = _name(*source)
            assert isinstance(metric, Counter)  # noqa: S101 - the table above
            self._tally.add(metric, *labels, amount=read.get(name, 0) - base.get(name, 0))
        self._checkpoint.move("read", dict(read))

    def counts(self) -> Iterable[Sample]:
        """Restarts, and how far behind the store is; the rest is the ledger's to show."""
        yield from (sample for sample in self._tally.samples() if sample.metric is RESTARTS)
        if self._checkpoint.kept:
            yield CHECKPOINT_LAG(self._checkpoint.lag(), exporter=self._checkpoint.name)

    async def stop(self) -> None:
        """Let go of the checkpoint's name and of the connection."""
        await self._checkpoint.close()
        await self._client.aclose()


def _name(counter: str, provider: str | None) -> str:
    return counter if provider is None else f"{counter}/{provider}"


def parse(text: str) -> dict[str, float]:
    """The counters we hand over and the start time, by `_name`.

    Raises:
        SourceError: It is no exposition, lacks the start time, or one of those values is no count.
    """
    read: dict[str, float] = {}
    try:
        for name, value in _samples(text):
            read[name] = read.get(name, 0) + value
    except ValueError as exc:
        raise SourceError(
            "the application's /metrics is not in Prometheus' text format; check APP_METRICS_URL"
        ) from exc
    if START not in read:
        # A proxy's empty page, or somebody else's: taken for a restart, it would make the next one count all anew.
        raise SourceError(f"the application's /metrics lacks {START}; check APP_METRICS_URL")
    if any(not math.isfinite(value) or value < 0 for value in read.values()):
        raise SourceError("the application's /metrics holds a counter that is no count")
    return read


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == START:
                yield START, sample.value
            for counter, provider in HANDED_OVER:
                # The parser gives a counter that is declared as one the `_total` prom-client's names lack.
                if sample.name.removesuffix("_total") == counter and provider in (None, sample.labels.get("provider")):
                    yield _name(counter, provider), sample.value


def collectors(settings: Settings) -> list[Collector]:
    """Its one collector."""
    dsn = settings.ops_dsn
    name = app_totals.checkpoint_name(settings.ops_exporter_name)
    return [App(settings.reveal("APP_METRICS_URL"), name, dsn.get_secret_value() if dsn else None)]


SUBJECT = Subject(
    name="app",
    title="The application's own counters",
    needs=("APP_METRICS_URL",),
    metrics=(RESTARTS,),
    collectors="exporters.app:collectors",
    signals=signals.SIGNALS,
    alerts=signals.ALERTS,
    board="overview",
)
