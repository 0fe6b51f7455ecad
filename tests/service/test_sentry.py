"""Sentry: a real HTTP ingest sees the errors and none of the secrets."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk

from opslib import sentry, settings

PLANTED = "hunter2-planted"


class Ingest(ThreadingHTTPServer):
    """A Sentry ingest that keeps what it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes."""
        return [
            json.loads(payload)
            for body in self.bodies
            for header, payload in [body.split(b"\n")[1:3]]
            if json.loads(header)["type"] == "event"
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Ingest

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    """An ingest on a free port; the SDK is off again after the test."""
    with Ingest() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            sentry_sdk.get_client().close(timeout=2)
            sentry_sdk.get_global_scope().set_client(None)
            server.shutdown()
            thread.join()


def fail() -> None:
    """Raise with the secret in message, local variable and cause."""
    local = {"api_key": PLANTED}
    try:
        int(local["api_key"])
    except ValueError as exc:
        raise RuntimeError(f"outer {PLANTED} for joe@example.com") from exc


def test_an_error_arrives_without_its_secrets(ingest: Ingest) -> None:
    """Message, locals, chain, breadcrumbs, tags, contexts: the error is there, the secret is not."""
    dsn = f"http://publickey@127.0.0.1:{ingest.server_port}/1"
    sentry.init(settings.load({"SENTRY_DSN": dsn, "KINGUIN_API_KEY": PLANTED, "SENTRY_RELEASE": "ops@1.2.3"}))
    sentry_sdk.add_breadcrumb(message=f"called with {PLANTED}", data={"x-api-key": "other-secret", "n": [PLANTED]})
    sentry_sdk.set_context("job", {"payload": {"token": "third-secret", "x": PLANTED}})
    try:
        fail()
    except RuntimeError as exc:
        sentry.capture(exc, collector="providers", note=PLANTED)
    sentry_sdk.flush(5)
    (event,) = ingest.events()
    everything = b"".join(ingest.bodies).decode()
    for secret in (PLANTED, "other-secret", "third-secret", "joe@", socket.gethostname()):
        assert secret not in everything
    assert [each["value"] for each in event["exception"]["values"]] == [
        "invalid literal for int() with base 10: '***'",
        "outer *** for j***@example.com",
    ]
    assert all("vars" not in frame for each in event["exception"]["values"] for frame in each["stacktrace"]["frames"])
    assert event["tags"] == {"collector": "providers", "note": "***"}
    assert (event["environment"], event["release"]) == ("production", "ops@1.2.3")
    assert event["breadcrumbs"]["values"][0]["message"] == "called with ***"
    assert "argv" not in everything
    assert not event.get("modules")


def test_without_dsn_nothing_happens() -> None:
    """No DSN: init and capture do nothing, as often as one likes."""
    sentry.init(settings.load({}))
    sentry.capture(ValueError("lost"), collector="x")
    sentry.capture(ValueError("lost"))
    assert not sentry_sdk.get_client().is_active()


def test_an_absent_ingest_is_quiet(ingest: Ingest, capfd: pytest.CaptureFixture[str]) -> None:
    """Sentry itself down: capture returns, nothing is printed."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sentry.init(settings.load({"SENTRY_DSN": f"http://publickey@127.0.0.1:{closed.getsockname()[1]}/1"}))
        sentry.capture(ValueError("lost"))
        sentry_sdk.flush(1)
    assert capfd.readouterr() == ("", "")
    assert ingest.bodies == []
