"""The exporter's HTTP side: /metrics, /healthz, /readyz; drained on SIGTERM.

`/healthz` says the process turns; `/readyz` that every collector succeeded once and back-fills are done; `/metrics`
answers 200 whatever is down, because a page that says `up 0` is worth more than none.
"""

from __future__ import annotations

import asyncio
import hmac
import signal
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from opslib import build, systemd
from opslib.collector import Collector, Watch
from opslib.errors import ConfigError
from opslib.exposition import OPENMETRICS, TEXT, Page
from opslib.packed import Piece, gzipped, plain
from opslib.spec import Counter, Gauge, Metric

log = structlog.get_logger()

BUILD = Gauge("ops_build_info", "Always 1; which build this is.", ("version", "commit"))
DROPPED = Counter("ops_dropped_series_total", "Series left out of the page: duplicates, or beyond a collector's cap.")
PAGE_METRICS: tuple[Metric, ...] = (BUILD, DROPPED)

ON_THE_WAY = 4  # turns of the loop until every collector has asked its source and waits
DRAIN = 5.0  # seconds a request under way may still take after SIGTERM


@dataclass(frozen=True, slots=True)
class Listen:
    """Where and how to listen.

    Attributes:
        host: Address; loopback unless the operator says otherwise.
        port: Port; 0 takes a free one.
        token: Bearer token a scrape must carry, if any. Probes need none.
        certificate: PEM file of the certificate chain, if TLS.
        key: PEM file of its key.
    """

    host: str
    port: int
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None


class Exporter:
    """All collectors of this process and their page.

    Args:
        collectors: What to collect.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self.watches = [Watch(collector) for collector in collectors]
        self._duplicates = 0
        self._build = BUILD(1, version=build.version(), commit=build.commit())
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)

    async def page(self, *, openmetrics: bool, gzip: bool = False) -> bytes:
        """The whole page, within a second."""
        page = Page()
        process, parts = await asyncio.gather(
            self._about_us(openmetrics=openmetrics), asyncio.gather(*(watch.samples() for watch in self.watches))
        )
        for samples in parts:
            page.add(samples)
        self._duplicates += page.dropped
        dropped = self._duplicates + sum(watch.collector.dropped for watch in self.watches)
        page.add([self._build, DROPPED(dropped)])
        pieces = [*page.pieces(openmetrics=openmetrics), process]
        return gzipped(pieces) if gzip else plain(pieces)

    async def _about_us(self, *, openmetrics: bool) -> Piece:
        """What the process costs."""
        for _ in range(ON_THE_WAY):
            await asyncio.sleep(0)
        return Piece((generate_openmetrics if openmetrics else generate_latest)(self._process))

    async def start(self) -> None:
        """Start every collector."""
        await asyncio.gather(*(watch.start() for watch in self.watches))

    async def stop(self) -> None:
        """Stop them all, saving what is to be saved."""
        await asyncio.gather(*(watch.stop() for watch in self.watches), return_exceptions=True)


def application(exporter: Exporter, token: str | None) -> web.Application:
    """The routes."""

    async def metrics(request: web.Request) -> web.Response:
        if token is not None:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
                return web.Response(
                    status=401, text="a bearer token is needed\n", headers={"WWW-Authenticate": "Bearer"}
                )
        openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        gzip = "gzip" in request.headers.get("Accept-Encoding", "")
        body = await exporter.page(openmetrics=openmetrics, gzip=gzip)
        headers = {"Content-Type": OPENMETRICS if openmetrics else TEXT, "Vary": "Accept, Accept-Encoding"}
        if gzip:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready = await asyncio.gather(*(watch.ready() for watch in exporter.watches))
        waiting = [
            watch.collector.name for watch, is_ready in zip(exporter.watches, ready, strict=True) if not is_ready
        ]
        if waiting:
            return web.Response(status=503, text="waiting for: " + ", ".join(waiting) + "\n")
        return web.Response(text="ok\n")

    routes = web.Application()
    routes.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return routes


async def serve(collectors: Sequence[Collector], listen: Listen) -> None:
    """Run until SIGTERM or SIGINT, then drain: finish requests, save checkpoints, let go of connections.

    Raises:
        ConfigError: The address cannot be listened on, or the certificate not read.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    exporter = Exporter(collectors)
    runner = web.AppRunner(application(exporter, listen.token), access_log=None, shutdown_timeout=DRAIN)
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=_tls(listen))
        try:
            await site.start()
        except OSError as exc:
            raise ConfigError(
                f"cannot listen on {listen.host}:{listen.port}: {exc.strerror}; choose another --listen"
            ) from exc
        await exporter.start()
        port = runner.addresses[0][1]
        log.info("exporter_listening", host=listen.host, port=port, collectors=[c.name for c in collectors])
        async with systemd.running():
            await stopping.wait()
        log.info("exporter_draining")
    finally:
        await runner.cleanup()
        await exporter.stop()


def _tls(listen: Listen) -> ssl.SSLContext | None:
    if listen.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(listen.certificate, listen.key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"cannot use the certificate {listen.certificate}: {exc}") from exc
    return context
