"""Logs: one shape for ours and the libraries', redacted, and never in the way."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from opslib import log, settings

PLANTED = "hunter2-planted"
ENV = {"KINGUIN_API_KEY": PLANTED, "OPS_LOG_FORMAT": "json"}


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    """Put logging back as pytest had it."""
    root, hook, levels = (
        logging.getLogger(),
        sys.excepthook,
        {name: logging.getLogger(name).level for name in log._LOUD},
    )
    level, handlers = root.level, list(root.handlers)
    yield
    structlog.reset_defaults()
    sys.excepthook = hook
    root.setLevel(level)
    root.handlers[:] = handlers
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What came out on stderr; stdout stays the user's."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def fail() -> None:
    """Raise with the secret in the message, in a local variable and in the cause."""
    local = f"inner {PLANTED}"
    try:
        int(local)
    except ValueError as exc:
        raise RuntimeError(f"outer {PLANTED}") from exc


def test_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Static event, key-values, UTC time, level; below the level nothing."""
    log.configure(settings.load(ENV))
    structlog.get_logger().info("backup_uploaded", key="a", bytes=3)
    structlog.get_logger().debug("quiet")
    (line,) = lines(capsys)
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.tzinfo == UTC
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60
    assert line == {"event": "backup_uploaded", "level": "info", "key": "a", "bytes": 3}


def test_secrets_come_out_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Event, values, nesting, bound context, exception with its cause, a library's message and traceback."""
    log.configure(settings.load(ENV))
    logger = structlog.get_logger().bind(bound=PLANTED)
    with structlog.contextvars.bound_contextvars(context={"deep": [PLANTED]}):
        event = f"event {PLANTED}"
        logger.warning(event, list=[PLANTED], obj=ValueError(PLANTED), password="short", to="joe@x.com")
    try:
        fail()
    except RuntimeError:
        logger.exception("failed")
        logging.getLogger("psycopg.pool").exception("lost %s", PLANTED)
    text = capsys.readouterr().err
    assert PLANTED not in text
    assert "joe@" not in text
    assert "short" not in text
    first, ours, library = map(json.loads, text.splitlines())
    assert first["to"] == "j***@x.com"
    assert "RuntimeError: outer ***" in ours["exception"]
    assert "ValueError: invalid literal for int() with base 10: 'inner ***'" in ours["exception"]
    assert (library["event"], library["library"], library["message"]) == ("library_message", "psycopg.pool", "lost ***")
    assert "RuntimeError: outer ***" in library["exception"]


def test_libraries_from_warning_up(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's chatter stays out, its broken format does no harm, access logs are off, configuring twice too."""
    log.configure(settings.load(ENV))
    log.configure(settings.load({**ENV, "OPS_LOG_LEVEL": "debug"}))
    logging.getLogger("redis").warning("gone")
    logging.getLogger("redis").info("chatter")
    logging.getLogger("httpx").info("GET /secret")
    logging.getLogger("aiohttp.access").critical("GET /metrics")
    logging.getLogger("psycopg.pool").warning("error connecting in 'pool-1'")
    log._Bridge().emit(logging.makeLogRecord({"msg": "bad %s %s", "args": ("format",), "levelno": logging.ERROR}))
    assert [line["message"] for line in lines(capsys)] == ["gone", "bad %s %s"]


def test_console_cannot_be_steered(capsys: pytest.CaptureFixture[str]) -> None:
    """A queue name with escape sequences stays text; a traceback keeps its lines and shows no locals."""
    log.configure(settings.load({**ENV, "OPS_LOG_FORMAT": "console"}))
    structlog.get_logger().info("queue_found", queue="\x1b[2Jgone\r\x9b")
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("failed")
    text = capsys.readouterr().err
    assert "\x1b[2J" not in text
    assert "\r" not in text
    assert "\\x1b[2Jgone" in text
    assert "\nRuntimeError: outer ***" in text
    assert PLANTED not in text


def test_auto_is_json_unless_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default looks at stderr."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure(settings.load({}))
        structlog.get_logger().info("hello")
        assert stream.getvalue().startswith("{") is is_json


def test_closed_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads our log may go away."""
    log.configure(settings.load(ENV))
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    structlog.get_logger().info("hello")


def test_a_crash_leaves_redacted() -> None:
    """An uncaught exception is one redacted line, not a raw traceback."""
    program = (
        f"from opslib import log, settings\nlog.configure(settings.load({ENV!r}))\nraise ValueError('lost {PLANTED}')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["event"] == "crashed"
    assert line["exception"].endswith("ValueError: lost ***")
    assert PLANTED not in done.stderr
