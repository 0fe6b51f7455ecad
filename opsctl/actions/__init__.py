"""Everything an operator may change, one module per area; each action is a click command under the guard.

How to write one (`operators.py` is a worked example)::

    @queues.command()
    @click.argument("queue")
    @click.argument("ids", nargs=-1)
    @action(
        "queues.retry",
        role=Role.STAFF,
        severity=Severity.RISKY,
        event="OPS_QUEUE_ACTION",
        touches="failed jobs of a queue",
        runbook="QueueFailures",
    )
    def retry(act: Act, queue: str, ids: tuple[str, ...]) -> None:
        \"\"\"Put failed jobs of a queue back in line, exactly those named.\"\"\"
        jobs = ...                                             # 1. look; raise NotFoundError if there is nothing
        act.plan(queue, f"retry {len(jobs)} of {queue}", *map(str, jobs))  # 2. say; `--dry-run` ends at step 3
        with act.go():                                         # 3. role, reason, confirmation; then the intent
            ...                                                # 4. change; what is raised here is the outcome `failed`
        click.echo("done")                                     # 5. by now the outcome is written

`@action` stands below click's own decorators and adds `--reason`, `--dry-run` and, by severity, `--yes` (risky) or
`--confirm NAME` (destructive; NAME is the plan's target). Instead of `go`:

- `with act.transaction() as connection:` for a change in schema `ops`: it is committed together with its outcome;
- `act.allow()`, then `with act.each(job):` for each of many: an intent and an outcome per item.

The arguments of the command go into the audit, redacted; `act.each(target, {...})` adds particulars. Settings are
`act.settings`. Nothing else may change anything: a command that only reads says `@reads` (`opsctl.kinds`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from opsctl.kinds import marked
from opslib.action import Action, Role, Severity

if TYPE_CHECKING:
    from opslib.guard import Act

P = ParamSpec("P")

__all__ = ["Role", "Severity", "Terminal", "action"]


class Terminal:
    """Whoever sits at the terminal, if there is one. Plans go to standard error: standard output is the result's."""

    def shows(self, lines: Sequence[str]) -> None:
        """Print the plan."""
        for number, line in enumerate(lines):
            click.echo(line if number == 0 else f"  {line}", err=True)

    def answers(self, question: str) -> str | None:
        """Ask; an empty answer is an answer, and never a yes. None without a terminal."""
        if not sys.stdin.isatty():
            return None
        try:
            return str(click.prompt(question, default="", show_default=False, err=True))
        except click.Abort:
            raise KeyboardInterrupt from None


def action(
    name: str, *, role: Role, severity: Severity, event: str, touches: str, runbook: str
) -> Callable[[Callable[Concatenate[Act, P], None]], Callable[..., None]]:
    """Make a function an action: the guard first, then the function with an `Act` in front.

    Args:
        name: `area.verb`.
        role: Who may, at least.
        severity: What the guard asks for.
        event: The audit event's name.
        touches: What it changes, in words, as in "… changes WORDS: say why".
        runbook: The page that explains it.
    """
    spec = Action(name, role, severity, event, touches, runbook)

    def decorate(function: Callable[Concatenate[Act, P], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, reason: str, dry_run: bool, confirm: str | None = None, yes: bool = False, **arguments: Any) -> None:
            from opslib import log, settings  # noqa: PLC0415 - listing commands need not load them
            from opslib.errors import RefusedError  # noqa: PLC0415 - as above
            from opslib.guard import Act, Asked, DryRun  # noqa: PLC0415 - as above

            loaded = settings.load()
            log.configure(loaded)
            given = {key: value for key, value in arguments.items() if key != "output"}
            act = Act(spec, loaded, Asked(reason, confirm, yes, dry_run, given), Terminal(), _about(arguments))
            try:
                function(act, **arguments)  # type: ignore[call-arg] # click's parameters are the function's
            except DryRun:
                click.echo("dry run: nothing was changed", err=True)
            except RefusedError as exc:
                act.refused(exc)
                raise

        return marked(_options(run, severity), spec)

    return decorate


def _about(arguments: Mapping[str, Any]) -> str:
    """The command's first argument, which names what it is about; empty where it has none."""
    parameters = click.get_current_context().command.params
    named = (parameter.name for parameter in parameters if isinstance(parameter, click.Argument))
    return next((str(arguments[name]) for name in named if name), "")


def _options(run: Callable[..., None], severity: Severity) -> Callable[..., None]:
    run = click.option("--dry-run", is_flag=True, help="Print what would be done, and stop.")(run)
    if severity is Severity.DESTRUCTIVE:
        run = click.option("--confirm", metavar="NAME", help="The target's name, instead of typing it when asked.")(run)
    if severity is Severity.RISKY:
        run = click.option("--yes", is_flag=True, help="Do not ask.")(run)
    return click.option("--reason", default="", metavar="TEXT", help="Why; it is kept in the audit.")(run)
