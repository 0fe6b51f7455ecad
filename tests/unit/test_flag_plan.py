"""The three-way compare: who moved, and what follows. Every combination, by table and by chance."""

# A flag is on or off: here a bare bool is the plainest way to say so.
# ruff: noqa: FBT001, FBT002, FBT003, PLR0917

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.areas.flag_plan import Applied, Live, Override, State, Verdict, plan
from opslib.areas.flags import Flag, Scope

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def flag(enabled: bool = True, *, enforce: bool = False, rollout: int = 100, key: str = "f") -> Flag:
    """A declared flag."""
    scope = Scope.GLOBAL if rollout == 100 else Scope.USER
    return Flag(
        key=key,
        enabled=enabled,
        description="d",
        category="c",
        owner="o",
        scope=scope,
        rollout=rollout,
        enforce=enforce,
    )


def override(value: bool, *, until: datetime = NOW + HOUR) -> Override:
    """An override of anna's."""
    return Override(value, until, "anna", NOW - HOUR, "incident 7")


def verdict(
    last: bool | None, declared: Flag | None, live: bool | None, *, held: Override | None = None, hand: bool = True
) -> Verdict:
    """The verdict on one flag; `hand`: the row was changed after we last set it, by bob."""
    changed = NOW - timedelta(minutes=5) if hand else NOW - 2 * HOUR
    (found,) = plan(
        {} if last is None else {"f": Applied(last, NOW - HOUR)},
        {} if declared is None else {"f": declared},
        {} if held is None else {"f": held},
        {} if live is None else {"f": Live(live, "b***@example.com", changed)},
        NOW,
    )
    return found


@pytest.mark.parametrize(
    ("last", "wanted", "live", "state", "apply", "remember"),
    [
        (True, True, True, State.IN_SYNC, False, True),
        (False, True, True, State.IN_SYNC, False, True),  # both moved to the same
        (None, True, True, State.IN_SYNC, False, True),  # as wanted before we came
        (False, True, False, State.IN_SYNC, True, True),  # the file moved
        (True, False, True, State.IN_SYNC, True, False),
        (True, True, False, State.DRIFT, False, True),  # the application was moved by hand
        (False, False, True, State.DRIFT, False, False),
        (None, True, False, State.DRIFT, False, None),  # nobody can tell who moved
        (True, True, None, State.UNKNOWN, False, None),
    ],
)
def test_who_moved(
    last: bool | None,
    wanted: bool,
    live: bool | None,
    state: State,
    apply: bool,
    remember: bool | None,
) -> None:
    """Each combination of last applied, file and live."""
    found = verdict(last, flag(wanted), live)
    assert (found.state, found.apply, found.applied) == (state, apply, remember)


def test_drift_says_who_and_when() -> None:
    """As far as the row does: one not touched since we set it was changed behind the application's back."""
    found = verdict(True, flag(), live=False)
    assert (found.changed_by, found.changed_at) == ("b***@example.com", NOW - timedelta(minutes=5))
    assert found.why == "changed by hand; the file wants it on"
    found = verdict(True, flag(), live=False, hand=False)
    assert (found.changed_by, found.changed_at) == (None, None)


def test_enforced_is_undone_and_still_reported() -> None:
    """The hand edit does not stay, and who made it is known."""
    for last in (True, None):
        found = verdict(last, flag(enforce=True), live=False)
        assert (found.state, found.apply, found.wanted, found.changed_by) == (
            State.IN_SYNC,
            True,
            True,
            "b***@example.com",
        )


def test_an_override_holds_until_its_time_and_is_then_put_back() -> None:
    """Wanted while it lasts; afterwards the file's value comes back by itself. Of a partial rollout nothing would."""
    held = override(value=False)
    assert verdict(True, flag(), live=True, held=held).apply
    found = verdict(False, flag(), live=False, held=held)
    assert (found.state, found.wanted, found.why) == (State.IN_SYNC, False, "as anna's override wants it")
    over = override(value=False, until=NOW)
    found = verdict(False, flag(), live=False, held=over)
    assert (found.apply, found.wanted, found.why) == (True, True, "the file wants it on")
    found = verdict(False, flag(rollout=20), live=False, held=override(value=True))
    assert (found.state, found.wanted, found.apply) == (State.DOCUMENT_ONLY, None, False)


def test_a_hand_that_undoes_an_override_is_drift() -> None:
    """During the override; and when its time is over, all is as the file wants it."""
    assert verdict(False, flag(), live=True, held=override(value=False)).state is State.DRIFT
    assert verdict(False, flag(), live=True, held=override(value=False, until=NOW)).state is State.IN_SYNC


def test_a_partial_rollout_is_not_for_a_table_of_on_and_off() -> None:
    """The application's flag is left alone, whatever it says; nobody at all is a plain off."""
    found = verdict(True, flag(rollout=20), live=True)
    assert (found.state, found.apply, found.wanted, found.applied) == (State.DOCUMENT_ONLY, False, None, None)
    assert verdict(True, flag(rollout=0), live=True).apply


def test_undeclared() -> None:
    """A flag only the application knows is named and left alone."""
    found = verdict(True, None, live=True)
    assert (found.state, found.apply, found.wanted) == (State.UNDECLARED, False, None)


maybe = st.sampled_from([None, True, False])


@given(last=maybe, wanted=st.booleans(), live=maybe, held=maybe, enforce=st.booleans(), over=st.booleans())
def test_never_silently_overwritten(
    last: bool | None,
    wanted: bool,
    live: bool | None,
    held: bool | None,
    enforce: bool,
    over: bool,
) -> None:
    """Set only what still has our last value, or what the file enforces; a second plan has nothing left to set."""
    lasts = {} if held is None else {"f": override(held, until=NOW if over else NOW + HOUR)}
    declared = {"f": flag(wanted, enforce=enforce)}

    def once(before: bool | None, now: bool | None) -> Verdict:
        applied = {} if before is None else {"f": Applied(before, NOW - HOUR)}
        (found,) = plan(applied, declared, lasts, {} if now is None else {"f": Live(now, None, NOW)}, NOW)
        return found

    first = once(last, live)
    if first.apply:
        assert live is not None
        assert enforce or last == live != first.wanted
    second = once(first.applied, first.wanted if first.apply else live)
    assert not second.apply
    assert second.state is first.state
