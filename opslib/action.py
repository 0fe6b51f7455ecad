"""What an action of an operator IS: frozen data, no I/O, and nothing to load: each command's start pays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an operator is: a member of `ops_staff` or of `ops_super`, which may all that staff may."""

    STAFF = "staff"
    SUPER = "super"


class Severity(StrEnum):
    """How much a mistake costs, and so what the guard demands beside a reason."""

    SAFE = "safe"
    """Nothing is lost: nothing more is asked."""
    RISKY = "risky"
    """Work is done again or stops: yes or no, `--yes` in a script."""
    DESTRUCTIVE = "destructive"
    """Something is gone for good: the target's name is typed, `--confirm=NAME` in a script; there is no `--yes`."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing an operator may do, declared once at its command.

    Attributes:
        name: `area.verb`, as `opsctl audit list --action` takes it.
        role: Who may, at least.
        severity: What the guard asks for.
        event: The audit event's name: `OPS_QUEUE_ACTION`.
        touches: What it changes, in words.
        runbook: Where it is explained: a page's name.
    """

    name: str
    role: Role
    severity: Severity
    event: str
    touches: str
    runbook: str
