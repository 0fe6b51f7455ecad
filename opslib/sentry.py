"""Errors to Sentry, if a DSN is set: redacted, without local variables, request bodies or this machine's name.

The SDK is imported only when it is used: it costs a stranger without Sentry some megabytes otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opslib import build
from opslib.errors import OpsError
from opslib.redact import redact
from opslib.settings import Settings

if TYPE_CHECKING:
    from sentry_sdk.types import MonitorConfig

_FLUSH = 2.0  # seconds a last report may take when the process ends


def init(settings: Settings) -> None:
    """Report errors from now on; without `SENTRY_DSN` do nothing."""
    if settings.sentry_dsn is None:
        return
    import sentry_sdk  # noqa: PLC0415 - see above
    from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415

    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.sentry_environment,
        release=settings.sentry_release or f"bitloot-ops@{build.version()}",
        # send_default_pii stays at its default, off: naming it at all is deprecated in the SDK's newer line.
        include_local_variables=False,
        max_request_body_size="never",
        before_send=_event,
        before_send_transaction=_event,
        before_breadcrumb=lambda crumb, _: redact(crumb),
        # Only what catches and delivers errors: the others read argv, modules, URLs and headers.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[ExcepthookIntegration(), DedupeIntegration(), AtexitIntegration(callback=lambda *_: None)],
        auto_session_tracking=False,
        send_client_reports=False,
        shutdown_timeout=_FLUSH,
        spotlight=False,
    )


def capture(exc: BaseException, **tags: str) -> None:
    """Report `exc` with `tags`; nothing happens where `init` did nothing. Returns at once and never raises."""
    sdk = sys.modules.get("sentry_sdk")
    if sdk is None:
        return
    with sdk.new_scope() as scope:
        for name, value in tags.items():
            scope.set_tag(name, value)
        scope.capture_exception(exc)


def job_failed(job: str, run: int, error: str, trace: Sequence[str]) -> None:
    """Report a run that failed for good; all failures of one job are one issue."""
    sdk = sys.modules.get("sentry_sdk")
    if sdk is None:
        return
    sdk.capture_event(
        {
            "level": "error",
            "logger": "jobs",
            "message": f"{job} failed: {error}",
            "fingerprint": ["job", job],
            "tags": {"job": job},
            "extra": {"run": run, "trace": list(trace)},
        }
    )


def check_in(monitor: str, number: str, status: str, config: Mapping[str, Any]) -> None:
    """Tell a cron monitor that a run is `in_progress`, or ended `ok` or in `error`.

    Args:
        monitor: The job; Sentry makes the monitor by itself, as `config` says.
        number: 32 hex digits that tie the beginning to the end.
        status: Which of the three.
        config: Schedule, margin and longest duration in minutes.
    """
    sdk = sys.modules.get("sentry_sdk")
    if sdk is not None and sdk.is_initialized():
        from sentry_sdk.crons import capture_checkin  # noqa: PLC0415 - loaded already

        capture_checkin(monitor, number, status, monitor_config=cast("MonitorConfig", config))


def _event(event: Any, hint: Any) -> Any:
    if isinstance(hint.get("exc_info", (None, None))[1], OpsError):
        # Our message says it all; the errors it was made from may quote a row, a page or an answer.
        event["exception"]["values"] = event["exception"]["values"][-1:]
    clean = redact(event)
    clean.pop("server_name", None)
    return clean
