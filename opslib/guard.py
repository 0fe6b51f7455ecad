"""How an action runs: plan, role, reason, confirmation; then intent, change, outcome.

The role is asked of the database, which knows the login and its memberships. Whatever is refused is written down as
refused; what cannot be written down is not done. Nothing is ever taken for a yes: without a terminal and without an
explicit `--yes` or `--confirm` the answer is no, at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import structlog

from opslib import audit
from opslib.action import Action, Role, Severity
from opslib.audit import Event, Outcome
from opslib.errors import OpsError, RefusedError, SourceError
from opslib.postgres import describe
from opslib.redact import redact
from opslib.settings import Settings

log = structlog.get_logger()

MAY = {Role.STAFF: {"staff", "super", "owner", "superuser"}, Role.SUPER: {"super", "owner", "superuser"}}
"""The words of `ops.operator_role()` that satisfy a role. An owner is there to add the first operator."""

_YES = frozenset({"y", "yes"})


class Person(Protocol):
    """Whoever sits at the other end."""

    def shows(self, lines: Sequence[str]) -> None:
        """Let them read the plan."""

    def answers(self, question: str) -> str | None:
        """What they type; None when there is nobody to ask."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How the action was asked for.

    Attributes:
        reason: Why, in the person's words.
        confirm: The target's name as given beforehand, `--confirm=NAME`.
        yes: `--yes`.
        dry_run: Print the plan and stop.
        arguments: Everything else that was given, for the audit.
    """

    reason: str = ""
    confirm: str | None = None
    yes: bool = False
    dry_run: bool = False
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to be done.

    Attributes:
        target: What it is done to; the name to type where the action is destructive.
        lines: What a person must know before saying yes, the summary first.
    """

    target: str
    lines: Sequence[str]


class DryRun(Exception):  # noqa: N818 - no error: the plan was all that was wanted
    """Stop here: `--dry-run`."""


class Act:
    """One action on its way: `plan`, then `go` or `transaction`, or `allow` and one `each` per item.

    Args:
        action: What it is.
        settings: Every setting; of the databases, under the operator's own login.
        asked: How it was asked for.
        person: Who can be asked.
        about: What it is asked to do something to, until `plan` says it better.
    """

    def __init__(self, action: Action, settings: Settings, asked: Asked, person: Person, about: str = "") -> None:
        self.action = action
        self.settings = settings
        self._dsn = settings.require_ops()
        self._asked = asked
        self._person = person
        self._plan = Plan(about, ())
        self._asking = False
        self._allowed = False

    @property
    def reason(self) -> str:
        """Why, in the person's words."""
        return self._asked.reason

    def plan(self, target: str, *lines: str) -> None:
        """Say what would be done, after looking and before touching anything.

        Args:
            target: What it is done to: a queue, a key, a login.
            lines: In words, the summary first.
        """
        self._plan = Plan(target, lines)

    def allow(self) -> None:
        """Let it pass, or not.

        Raises:
            DryRun: The plan was shown, and that was all.
            RefusedError: Role, reason or confirmation is missing; written down.
            SourceError: The database is away.
        """
        with audit.connect(self._dsn) as connection:
            self._person.shows([redact(line) for line in self._plan.lines])
            if self._asked.dry_run:
                raise DryRun
            self._asking = True
            try:
                self._check_role(connection)
                self._check_reason()
                self._check_confirmation()
            except RefusedError as exc:
                self._refused(connection, str(exc))
                raise
            except (KeyboardInterrupt, EOFError):
                self._refused(connection, "interrupted at the question")
                raise
        self._allowed = True

    def refused(self, why: RefusedError) -> None:
        """Write down what the action itself refused while it looked; from `allow` on that needs no telling."""
        if not self._asking and not self._asked.dry_run:
            # Refused it is in any case: a database that is away as well is not what there is to say.
            with contextlib.suppress(OpsError), audit.connect(self._dsn) as connection:
                self._refused(connection, str(why))

    def agrees(self, question: str) -> bool:
        """Ask between two items of an action that was allowed: yes, or `--yes`. Without a terminal it is no."""
        return self._asked.yes or (self._person.answers(question) or "").strip().lower() in _YES

    @contextlib.contextmanager
    def go(self) -> Iterator[None]:
        """Ask, write the intent, let the body act, write the outcome, whatever happens.

        Raises:
            DryRun, RefusedError, SourceError: See `allow`.
        """
        self.allow()
        with self.each(self._plan.target):
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """As `go`, for a change within the database of schema `ops`: change and outcome are committed together.

        Raises:
            DryRun, RefusedError, SourceError: See `allow`.
        """
        self.allow()
        event = self._event(self._plan.target, None)
        with audit.connect(self._dsn) as connection:
            started = time.monotonic()
            intent = audit.append(connection, event, Outcome.INTENT).seq
            try:
                with connection.transaction():
                    yield connection
                    audit.append(connection, event, Outcome.ALLOWED, intent=intent, milliseconds=_since(started))
            except BaseException as exc:
                self._failed(event, intent, started, exc)
                raise

    @contextlib.contextmanager
    def each(self, target: str, payload: Mapping[str, Any] | None = None) -> Iterator[None]:
        """One item of an action that was allowed: its own intent, its own outcome.

        Args:
            target: Which.
            payload: Its particulars.

        Raises:
            SourceError: The intent could not be written, and nothing was done; or only the outcome could not.
        """
        if not self._allowed:
            raise RuntimeError(f"{self.action.name}: allow() comes before each()")
        event = self._event(target, payload)
        started = time.monotonic()
        with audit.connect(self._dsn) as connection:
            intent = audit.append(connection, event, Outcome.INTENT).seq
        try:
            yield
        except BaseException as exc:
            self._failed(event, intent, started, exc)
            raise
        try:
            with audit.connect(self._dsn) as connection:
                audit.append(connection, event, Outcome.ALLOWED, intent=intent, milliseconds=_since(started))
        except OpsError as exc:
            raise SourceError(
                f"{self.action.name} on {target} was done, but its outcome could not be written down ({exc}): "
                f"intent {intent} stays unfinished in `opsctl audit list --unfinished`"
            ) from exc

    def _check_role(self, connection: psycopg.Connection) -> None:
        try:
            row = connection.execute("SELECT session_user, ops.operator_role()").fetchone()
        except psycopg.errors.InsufficientPrivilege as exc:
            log.warning("action_refused_unrecorded", action=self.action.name, error=describe(exc))
            raise RefusedError("this login is no operator's: see `opsctl operators` and docs/operators.md") from exc
        assert row is not None  # noqa: S101 - a function without FROM
        who, role = row
        if role not in MAY[self.action.role]:
            raise RefusedError(f"{self.action.name} takes the role {self.action.role}; {who} is {role}")

    def _check_reason(self) -> None:
        if not self._asked.reason.strip():
            raise RefusedError(f"{self.action.name} changes {self.action.touches}: say why with --reason")

    def _check_confirmation(self) -> None:
        target = self._plan.target
        if self.action.severity is Severity.DESTRUCTIVE:
            given = self._asked.confirm
            if given is None:
                given = self._person.answers(f"This cannot be undone. Type {target} to go on")
            if given is None:
                raise RefusedError(f"nobody to ask: confirm with --confirm={target}")
            if given.strip() != target:
                raise RefusedError(f"not confirmed: that is not {target}")
        elif self.action.severity is Severity.RISKY and not self._asked.yes:
            given = self._person.answers("Go on? [y/N]")
            if given is None:
                raise RefusedError("nobody to ask: confirm with --yes")
            if given.strip().lower() not in _YES:
                raise RefusedError("not confirmed")

    def _event(self, target: str, payload: Mapping[str, Any] | None) -> Event:
        particulars = {**(self._asked.arguments or {}), **(payload or {})}
        return Event(self.action.event, self.action.name, target, particulars, self._asked.reason)

    def _refused(self, connection: psycopg.Connection, why: str) -> None:
        """Write it down. Who may not even do that is no operator at all, and is refused all the same."""
        try:
            audit.append(connection, self._event(self._plan.target, None), Outcome.REFUSED, error=why)
        except psycopg.errors.InsufficientPrivilege:
            log.warning("action_refused_unrecorded", action=self.action.name)

    def _failed(self, event: Event, intent: int, started: float, why: BaseException) -> None:
        """Write it down on a connection of its own; where that fails, the open intent tells the same."""
        outcome = Outcome.REFUSED if isinstance(why, RefusedError) else Outcome.FAILED
        text = str(why) if isinstance(why, OpsError) else f"{type(why).__name__}: {why}"
        if isinstance(why, psycopg.Error):
            text = describe(why)
        with contextlib.suppress(OpsError), audit.connect(self._dsn) as connection:
            audit.append(connection, event, outcome, error=text, intent=intent, milliseconds=_since(started))


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000
