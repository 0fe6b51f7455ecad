"""The flagd document against flagd itself: its schema accepts it, and its own evaluation says what ours says."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opslib.areas import flags
from opslib.areas.flag_eval import evaluate, flagd
from opslib.areas.flag_plan import Override
from opslib.areas.flags import Flag, Scope
from tests.service.queue_kit import installed

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "node" / "flagd.mjs"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
UNITS = [f"unit-{number}" for number in range(5_000)]


@pytest.fixture(scope="session")
def core() -> Path:
    """Where flagd's evaluation is installed."""
    return installed("flagd-core", "@openfeature/flagd-core@4.0.1", "@openfeature/core@1")


def ask(core: Path, document: dict[str, Any], flag: str, *contexts: dict[str, str]) -> list[dict[str, Any]]:
    """What flagd says to each context."""
    question = json.dumps({"document": document, "flag": flag, "contexts": contexts})
    answer = subprocess.run(
        ["node", str(SCRIPT), str(core)], input=question, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    told: list[dict[str, Any]] = json.loads(answer.stdout)
    return told


def flag(key: str, *, enabled: bool = True, rollout: int = 100, scope: Scope = Scope.USER) -> Flag:
    """A declared flag."""
    return Flag(
        key=key, enabled=enabled, description="d", category="c", owner="o", scope=scope, rollout=rollout,
        expiry=date(2027, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize("scope", [Scope.USER, Scope.VENDOR])
@pytest.mark.parametrize("rollout", [1, 20, 50, 99])
def test_the_same_answer_for_everybody(core: Path, scope: Scope, rollout: int) -> None:
    """5,000 users or vendors: flagd and `opsctl flags eval` agree on each of them."""
    of = flag("new_checkout", rollout=rollout, scope=scope)
    unit = {Scope.USER: "targetingKey", Scope.VENDOR: "vendorId"}[scope]
    # A vendor's rollout asks no user's id, though every context has one.
    contexts = [{"targetingKey": "somebody", unit: each} for each in UNITS]
    told = ask(core, flagd({of.key: of}, {}, NOW), of.key, *contexts)
    assert [one["value"] for one in told] == [evaluate(of, None, NOW, each).value for each in UNITS]
    assert {one["reason"] for one in told} == {"TARGETING_MATCH"}
    assert {one["value"] for one in told} == {True, False}


def test_who_names_nobody_is_outside(core: Path) -> None:
    """Not one bucket for all who are not logged in, whatever the percentage."""
    of = flag("new_checkout", rollout=99)
    told = ask(core, flagd({of.key: of}, {}, NOW), of.key, {}, {"targetingKey": ""}, {"vendorId": "v"})
    assert [one["value"] for one in told] == [False, False, False]


def test_on_off_and_overridden(core: Path) -> None:
    """Whole flags are a default, and an override is the whole answer while it lasts."""
    declared = {"on": flag("on"), "off": flag("off", enabled=False), "some": flag("some", rollout=20)}
    held = Override(value=True, until=NOW + timedelta(hours=1), set_by="a", set_at=NOW, reason="r")
    context = {"targetingKey": "u"}
    for overrides, answers in (
        ({}, {"on": True, "off": False}),
        ({"off": held, "some": held}, {"on": True, "off": True, "some": True}),
    ):
        document = flagd(declared, overrides, NOW)
        assert {key: ask(core, document, key, context)[0]["value"] for key in answers} == answers


def test_our_own_file_fits_the_schema(core: Path) -> None:
    """And one that does not fit is refused, or this proves nothing."""
    file = flags.load(ROOT / "flags" / "flags.yaml")
    document = flagd(file.flags, {}, NOW)
    assert ask(core, document, "maintenance_mode", {})[0]["value"] is False
    document["flags"]["maintenance_mode"]["state"] = "ASLEEP"
    with pytest.raises(AssertionError, match="invalid flagd flag configuration"):
        ask(core, document, "maintenance_mode", {})
