"""The exporter's HTTP side as Prometheus and a load balancer meet it."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from demo.processes import free_port
from opslib.collector import AtScrape, Collector
from opslib.errors import ConfigError, SourceError
from opslib.server import Listen, serve
from opslib.spec import Gauge, Sample

VALUE = Gauge("test_value", "A value.", ("label",))
HOSTILE = 'a"b\nc{d}:e,\\ 🚀'


class Source(Collector):
    """A source that answers, until told otherwise."""

    name = "source"
    refresh = AtScrape()

    def __init__(self) -> None:
        self.down = False
        self.stopped = False

    async def collect(self) -> Sequence[Sample]:
        """One gauge with a hostile label."""
        if self.down:
            raise SourceError("away")
        return [VALUE(1, label=HOSTILE)]

    async def stop(self) -> None:
        """Note that it was stopped in order."""
        self.stopped = True


@asynccontextmanager
async def serving(source: Source, **listen: object) -> AsyncIterator[str]:
    """Serve `source` on a free port while the block runs, then send ourselves SIGTERM."""
    port = free_port()
    task = asyncio.create_task(serve([source], Listen("127.0.0.1", port, **listen)))  # type: ignore[arg-type]
    scheme = "https" if listen.get("certificate") else "http"
    async with asyncio.timeout(60), httpx.AsyncClient(verify=False) as client:
        while True:
            try:
                await client.get(f"{scheme}://127.0.0.1:{port}/healthz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
    yield f"{scheme}://127.0.0.1:{port}"
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(60):
        await task
    assert source.stopped


async def test_the_page_in_both_formats_plain_and_gzipped() -> None:
    """Content is negotiated as Prometheus does it; promtool accepts the page."""
    async with serving(Source()) as url, httpx.AsyncClient() as client:
        text = await client.get(f"{url}/metrics", headers={"Accept-Encoding": "identity"})
        assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in parse_text(text.text)}
        assert families["test_value"].samples[0].labels == {"label": HOSTILE}
        assert {"ops_collector_up", "ops_build_info", "process_cpu_seconds", "python_info"} <= families.keys()
        openmetrics = await client.get(
            f"{url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
        )
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert "test_value" in {family.name for family in parse_openmetrics(openmetrics.text)}
        async with client.stream("GET", f"{url}/metrics", headers={"Accept-Encoding": "gzip"}) as zipped:
            assert zipped.headers["content-encoding"] == "gzip"
            raw = b"".join([part async for part in zipped.aiter_raw()])
        assert b"test_value" in gzip.decompress(raw)
        promtool = shutil.which("promtool")
        assert promtool, "install prometheus"
        subprocess.run([promtool, "check", "metrics"], input=text.content, check=True)


async def test_ready_and_healthy_are_two_things() -> None:
    """Alive at once; ready once every collector succeeded; a page with `up 0` all the same."""
    source = Source()
    source.down = True
    async with serving(source) as url, httpx.AsyncClient() as client:
        page = await client.get(f"{url}/metrics")
        assert page.status_code == 200
        assert 'ops_collector_up{collector="source"} 0' in page.text
        assert (await client.get(f"{url}/healthz")).status_code == 200
        waiting = await client.get(f"{url}/readyz")
        assert (waiting.status_code, waiting.text) == (503, "waiting for: source\n")
        source.down = False
        assert (await client.get(f"{url}/readyz")).status_code == 200


async def test_a_token_guards_the_page() -> None:
    """Wrong, missing and unprintable tokens are refused alike; probes need none."""
    async with serving(Source(), token="s3cret") as url, httpx.AsyncClient() as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": b"Bearer \xff"}):
            refused = await client.get(f"{url}/metrics", headers=headers)  # type: ignore[arg-type]
            assert refused.status_code == 401
            assert "test_value" not in refused.text
        assert (await client.get(f"{url}/metrics", headers={"Authorization": "Bearer s3cret"})).status_code == 200
        assert (await client.get(f"{url}/healthz")).status_code == 200


async def test_tls(tmp_path: Path) -> None:
    """The certificate given is the one served."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1 -days 2"
    subprocess.run(
        ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    trust = ssl.create_default_context(cafile=str(certificate))
    async with serving(Source(), certificate=certificate, key=key) as url, httpx.AsyncClient(verify=trust) as client:
        assert (await client.get(f"{url}/metrics")).status_code == 200


async def test_an_address_in_use_and_a_bad_certificate_are_named(tmp_path: Path) -> None:
    """As settings to be changed."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="--listen"):
        await serve([Source()], Listen("127.0.0.1", taken.getsockname()[1]))
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"bad\.pem"):
        await serve([Source()], Listen("127.0.0.1", 0, certificate=tmp_path / "bad.pem"))
