"""Sentry: a real HTTP ingest sees the errors and none of the secrets."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
import sentry_sdk

from opslib import sentry, settings
from opslib.jobs.report import Report, monitor
from opslib.jobs.store import Reaped, Store, Taken
from opslib.spec import Cron, Every, Job

PLANTED = "hunter2-planted"


class Ingest(ThreadingHTTPServer):
    """A Sentry ingest that keeps what it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes."""
        return self.items("event")

    def items(self, kind: str) -> list[dict[str, Any]]:
        """What of that kind is in all envelopes."""
        return [
            json.loads(payload)
            for body in self.bodies
            for header, payload in [body.split(b"\n")[1:3]]
            if json.loads(header)["type"] == kind
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


def test_a_slot_checks_in_and_a_failure_is_one_event(ingest: Ingest) -> None:
    """A slot is one check-in, whoever ends it; runs asked for have none; one back in the queue tells nothing."""
    sentry.init(
        settings.load({"SENTRY_DSN": f"http://publickey@127.0.0.1:{ingest.server_port}/1", "KINGUIN_API_KEY": PLANTED})
    )
    nightly = Job("nightly", "Nightly", Cron("0 2 * * *"), timeout=90)
    slot = datetime(2026, 1, 5, 2, tzinfo=UTC)
    report, other = (Report({"nightly": nightly}, cast("Store", None), "test") for _ in range(2))
    for number, run in ((1, 11), (2, 11), (1, 12), (1, 13)):
        taken = Taken(number, number, run, "nightly", "default", None if run == 13 else slot, {}, "schedule", 90)
        report.started(taken)
    report.ended(Reaped(11, "nightly", slot, "QUEUED", "lost"), "QUEUED", "lost")
    other.ended(
        Reaped(11, "nightly", slot, "FAILED", ""), "FAILED", f"{PLANTED} for joe@example.com", ["job.py:3 in run"]
    )
    report.ended(Reaped(12, "nightly", slot, "SUCCESS", ""), "SUCCESS", None)
    report.ended(Reaped(13, "nightly", None, "FAILED", ""), "FAILED", "asked for by hand")
    sentry_sdk.flush(5)
    check_ins = ingest.items("check_in")
    assert [(each["monitor_slug"], each["status"]) for each in check_ins] == [
        ("nightly", "in_progress"),
        ("nightly", "in_progress"),
        ("nightly", "error"),
        ("nightly", "ok"),
    ]
    assert [each["check_in_id"] for each in check_ins[:2]] == [each["check_in_id"] for each in check_ins[2:]]
    assert check_ins[0]["check_in_id"] != check_ins[1]["check_in_id"]
    assert check_ins[0]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "0 2 * * *"},
        "timezone": "UTC",
        "checkin_margin": 5,
        "max_runtime": 7,
    }
    failed, by_hand = ingest.events()
    assert failed["fingerprint"] == by_hand["fingerprint"] == ["job", "nightly"]
    assert failed["extra"] == {"run": 11, "trace": ["job.py:3 in run"]}
    assert failed["message"] == "nightly failed: *** for j***@example.com"
    assert PLANTED not in b"".join(ingest.bodies).decode()


def test_a_period_as_sentry_takes_it() -> None:
    """It knows no seconds."""
    assert monitor(Every(90), 1)["schedule"] == {"type": "interval", "value": 2, "unit": "minute"}
    assert monitor(Every(5), 1)["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}


def test_without_dsn_nothing_happens() -> None:
    """No DSN: init and capture do nothing, as often as one likes."""
    sentry.init(settings.load({}))
    sentry.capture(ValueError("lost"), collector="x")
    sentry.capture(ValueError("lost"))
    sentry.job_failed("nightly", 1, "lost", ())
    sentry.check_in("nightly", "0" * 32, "ok", {})
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
