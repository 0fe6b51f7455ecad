"""What a flag says to one user, and why; and the same as a flagd document, which says it to everybody.

A user's place in a rollout is a stable hash of flag and user, so each user keeps theirs, and raising 20 % to 50 % takes
nobody's away. It is flagd's own place: `fractional` hashes with 32-bit MurmurHash3 and scales by the sum of weights.
Source: https://flagd.dev/reference/custom-operations/fractional-operation/ (a test evaluates both).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from opslib.areas.flag_plan import Override, active, word
from opslib.areas.flags import EVERYBODY, Flag, Scope

SCHEMA = "https://flagd.dev/schema/v0/flags.json"

UNIT = {Scope.USER: "targetingKey", Scope.VENDOR: "vendorId"}
"""What of the evaluation context a rollout is counted in."""

_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Answer:
    """What a flag says.

    Attributes:
        value: On or off.
        because: Each step that led there.
    """

    value: bool
    because: tuple[str, ...]


def evaluate(flag: Flag, override: Override | None, now: datetime, unit: str | None) -> Answer:
    """What `flag` says to one user or vendor.

    Args:
        flag: As declared.
        override: Of it, if any.
        now: When.
        unit: The user's or vendor's id; None: nobody in particular.
    """
    if override is not None and active(override, now):
        until = f"{override.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return Answer(override.value, (f"overridden by {override.set_by} until {until}: {override.reason}",))
    if not flag.enabled:
        return Answer(value=False, because=("off in the file",))
    if flag.rollout == EVERYBODY:
        return Answer(value=True, because=("on in the file, for everybody",))
    steps = (f"on in the file, for {flag.rollout} % of {flag.scope}s",)
    if unit is None:
        return Answer(value=False, because=(*steps, f"no {flag.scope} given: outside of every rollout"))
    place = position(flag.key, unit)
    inside = place < flag.rollout
    sign = "<" if inside else ">="
    where = f"{flag.scope} {unit} stands at {place} of {EVERYBODY}, a stable hash of flag and {flag.scope}"
    return Answer(inside, (*steps, where, f"{place} {sign} {flag.rollout}: {word(inside)}"))


def position(key: str, unit: str) -> int:
    """Where a user or vendor stands in a flag's rollout, 0 to 99: it is on for those below the percentage."""
    return (murmur3(f"{key}{unit}".encode()) * EVERYBODY) >> 32


def murmur3(data: bytes) -> int:
    """32-bit MurmurHash3 (x86), seed 0. Source: Austin Appleby's reference, in the public domain."""
    value = 0
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        value ^= _scramble(int.from_bytes(data[start : start + 4], "little"))
        value = (_rotate(value, 13) * 5 + 0xE6546B64) & _MASK
    if len(data) > whole:
        value ^= _scramble(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def _scramble(block: int) -> int:
    return (_rotate((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def flagd(flags: Mapping[str, Flag], overrides: Mapping[str, Override], now: datetime) -> dict[str, Any]:
    """The document flagd and the OpenFeature providers read: every flag, as it is now."""
    return {
        "$schema": SCHEMA,
        "flags": {key: _definition(flag, overrides.get(key), now) for key, flag in flags.items()},
    }


def _definition(flag: Flag, override: Override | None, now: datetime) -> dict[str, Any]:
    value = override.value if override is not None and active(override, now) else flag.plain
    definition: dict[str, Any] = {
        # Never DISABLED: that hands the question back to whatever default the code has.
        "state": "ENABLED",
        "variants": {"on": True, "off": False},
        "defaultVariant": word(bool(value)),
        "metadata": {"description": flag.description, "category": flag.category, "owner": flag.owner},
    }
    if flag.expiry is not None:
        definition["metadata"]["expiry"] = flag.expiry.isoformat()
    if value is None:
        unit = {"var": UNIT[flag.scope]}
        rollout = [{"cat": [{"var": "$flagd.flagKey"}, unit]}, ["on", flag.rollout], ["off", EVERYBODY - flag.rollout]]
        # Without the `if` all who name nobody would share one place, and be in or out together.
        definition["targeting"] = {"if": [unit, {"fractional": rollout}, "off"]}
    return definition
