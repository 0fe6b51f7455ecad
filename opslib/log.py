"""Logs: a static event name and key-values on stderr, JSON unless a terminal, everything redacted.

What libraries say through `logging` (from WARNING up) comes out the same way, as `library_message`. The web server's
access log stays off: scrapes are not news.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

from opslib.redact import redact
from opslib.settings import Settings

Event = MutableMapping[str, Any]

_OFF = logging.CRITICAL + 1
_LOUD = {
    "aiohttp.access": _OFF,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # The scheduler listens to what these say and says it itself, once.
    "apscheduler.executors": _OFF,
    "apscheduler.scheduler": logging.ERROR,
    # A warning for each attempt while Postgres is away, once a second; the collector says it once.
    "psycopg.pool": logging.ERROR,
}


def configure(settings: Settings) -> None:
    """Set up logging of this process to stderr as `settings` say; a later call replaces an earlier one."""
    level = logging.getLevelNamesMapping()[settings.ops_log_level.upper()]
    console = settings.ops_log_format == "console" or (settings.ops_log_format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redacted,
            *((_printable, _console()) if console else (structlog.processors.JSONRenderer(),)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),  # type: ignore[arg-type] # it writes and flushes
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if not isinstance(each, _Bridge)]
    root.addHandler(_Bridge())
    root.setLevel(max(level, logging.WARNING))
    for name, least in _LOUD.items():
        logging.getLogger(name).setLevel(max(level, least))
    sys.excepthook = _crashed


class _Stderr:
    """Standard error of the moment. A closed pipe or a full disk under it must not stop what was to be told."""

    def write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
        except (OSError, ValueError):
            return

    def flush(self) -> None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            return


class _Bridge(logging.Handler):
    """From `logging` to structlog, so that there is one way out."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit their format
            message = str(record.msg)
        structlog.get_logger().log(
            record.levelno, "library_message", library=record.name, message=message, exc_info=record.exc_info or None
        )


def _redacted(_: Any, __: str, event: Event) -> Event:
    """Last before rendering, so that exception text and context pass too."""
    clean: Event = redact(dict(event))
    return clean


def _printable(_: Any, __: str, event: Event) -> Event:
    """Keep names chosen by others from steering the terminal; a traceback keeps its line breaks."""
    return {
        key: "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in value)
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def _console() -> structlog.dev.ConsoleRenderer:
    # The traceback is text by now; the pretty one would show local variables.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _crashed(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    """An uncaught exception leaves through the same door."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
        return
    structlog.get_logger().critical("crashed", exc_info=(kind, exc, trace))
