"""Whole e-mail addresses: for ops_super, with a reason, and remembered before the first one is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from opsctl.actions import Role, Severity, Terminal
from opsctl.kinds import marked
from opslib.action import Action

UNMASK = Action(
    name="records.unmask",
    role=Role.SUPER,
    severity=Severity.SAFE,
    event="OPS_RECORDS_UNMASKED",
    touches="nothing, and shows whole e-mail addresses",
    runbook="Records",
)


def unmasking(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that reads `--unmask` and `--reason`; it gets `unmask`.

    Without `--unmask` it is as `@reads`. With it the guard comes first; who is refused is remembered, too.

    Args:
        what: Whose addresses, for the audit.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*, unmask: bool, reason: str, **arguments: Any) -> None:
            from opslib.postgres import reading  # noqa: PLC0415 - listing commands need not load them

            if not unmask:
                with reading():
                    command(unmask=False, **arguments)
                return
            from opslib import log, settings  # noqa: PLC0415 - as above
            from opslib.guard import Act, Asked  # noqa: PLC0415 - as above

            loaded = settings.load()
            log.configure(loaded)
            given = {name: str(value) for name, value in arguments.items() if value is not None and name != "output"}
            act = Act(UNMASK, loaded, Asked(reason=reason, arguments=given), Terminal())
            act.plan(what, f"show whole e-mail addresses of {what}")
            with act.go(), reading():
                command(unmask=True, **arguments)

        run = click.option("--reason", default="", metavar="TEXT", help="Why; with --unmask it is kept in the audit.")(
            run
        )
        run = click.option("--unmask", is_flag=True, help="Whole e-mail addresses: for ops_super, audited.")(run)
        return marked(run, "reads")

    return decorate
