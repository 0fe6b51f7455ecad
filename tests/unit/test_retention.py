"""What retention may never do, over ten thousand histories: real ones night by night, and nonsense."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opslib.areas.retention import (
    Backup,
    IncompleteError,
    Listing,
    NothingProvenError,
    Plan,
    Policy,
    TooMuchError,
    plan,
)
from opslib.storage import PendingUpload

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)  # the day Europe's clocks go forward
ANY = Policy(max_share=1)
FOUND = {"refused": 0, "removed": 0, "nothing": 0}


def backup(taken: datetime, *, verified: bool = True, key: str = "", modified: datetime | None = None) -> Backup:
    """A backup."""
    key = key or f"backups/db/{taken:%Y-%m-%dT%H%M%S}.sql.gz"
    return Backup(key, taken, modified or taken, 1, verified, f"{key}.json")


def nights(count: int, *, until: datetime = NOON, verified: bool = True) -> tuple[Backup, ...]:
    """One backup a night."""
    return tuple(backup(until - timedelta(days=n), verified=verified) for n in range(count))


def newest(backups: Iterable[Backup]) -> Backup:
    """By the backups' own account."""
    return max(backups, key=lambda b: (b.taken_at, b.key))


def history(seed: int) -> tuple[Listing, Policy, datetime]:
    """Some months of some shop: gaps, several a day, unproven ones, clocks that jump, and a `now` that may be wrong."""
    chance = random.Random(seed)
    at = NOON - timedelta(days=chance.choice((0, 3, 40, 200, 800)))
    made: dict[str, Backup] = {}
    proven = chance.choice((0, 0.02, 0.5, 0.95, 1))
    for _ in range(chance.choice((0, 1, 2, 10, 45, 90))):
        at += timedelta(seconds=chance.choice((60, 3600, 86_400, 86_400, 86_400, 900_000)) * chance.uniform(0.9, 1.1))
        lie = timedelta(days=chance.choice((0,) * 20 + (-4000, -1, 1, 4000)))
        one = backup(at + lie, verified=chance.random() < proven, modified=at)
        if chance.random() < 0.05:
            one = replace(one, manifest=None, verified=False)
        made[one.key] = one
    backups = list(made.values())
    chance.shuffle(backups)
    now = at + timedelta(days=chance.choice((0, 0, 0, 1, 30, -400, 4000, -20_000)))
    policy = Policy(
        daily=chance.choice((1, 2, 14, 30)),
        weekly=chance.choice((0, 1, 8)),
        monthly=chance.choice((0, 1, 12)),
        max_share=chance.choice((0, 0.1, 0.5, 0.5, 1)),
    )
    uploads = tuple(
        PendingUpload(f"backups/db/u{n}", str(n), at - timedelta(hours=chance.uniform(0, 60)))
        for n in range(chance.choice((0, 0, 3)))
    )
    running = at - timedelta(hours=chance.uniform(0, 3)) if chance.random() < 0.5 else None
    expected = frozenset(chance.sample(sorted(made), k=min(len(made), chance.choice((0, 1, 5)))))
    if chance.random() < 0.1:
        expected |= {"backups/db/gone.sql.gz"}
    return Listing(tuple(backups), (), uploads, expected, running), policy, now


def holds(listing: Listing, policy: Policy, now: datetime) -> Plan | None:
    """Plan, and check whatever must be true of every plan; None when it refused, as it then had to."""
    there = {b.key for b in listing.backups}
    proven = [b for b in listing.backups if b.verified]
    try:
        made = plan(listing, policy, now)
    except IncompleteError:
        assert not listing.expected <= there
        return None
    except NothingProvenError:
        assert not proven
        return None
    except TooMuchError:
        assert policy.max_share < 1
        return None
    gone = {b.key for b in made.remove}
    assert listing.expected <= there, "an incomplete listing is never acted on"
    assert gone | made.keep.keys() == there, "each backup is kept or removed"
    assert not gone & made.keep.keys()
    assert len(gone) <= policy.max_share * len(there)
    assert all(made.keep.values()), "what is kept has a reason"
    for group in (listing.backups, proven):
        if group:
            assert newest(group).key not in gone
            assert max(group, key=lambda b: (b.modified, b.key)).key not in gone
    if gone:
        assert made.anchor in proven
        assert made.anchor.key not in gone
    days = {b.taken_at.date() for b in proven if b.key not in gone}
    assert len(days) >= min(policy.daily, len({b.taken_at.date() for b in proven})), "proven days are not starved"
    for upload in made.abort:
        assert upload.initiated < now - policy.stale
        assert listing.running_since is None or upload.initiated < listing.running_since
    return made


def after(listing: Listing, made: Plan) -> Listing:
    """The bucket once the plan is done."""
    gone = {b.key for b in made.remove}
    return replace(
        listing,
        backups=tuple(b for b in listing.backups if b.key not in gone),
        expected=listing.expected - gone,
        orphans=(),
        uploads=tuple(u for u in listing.uploads if u not in made.abort),
    )


@settings(max_examples=10_000, deadline=None, database=None)
@given(st.integers(min_value=0))
def test_invariants_over_ten_thousand_histories(seed: int) -> None:
    """The newest proven one stays, the share holds, refusals have their reason, a second plan has nothing to do."""
    listing, policy, now = history(seed)
    made = holds(listing, policy, now)
    FOUND["refused" if made is None else "removed" if made.remove else "nothing"] += 1
    if made:
        again = plan(after(listing, made), policy, now)
        assert again.remove == ()
        assert again.abort == ()
        assert again.keep.keys() == made.keep.keys()


def test_the_histories_were_worth_it() -> None:
    """They were not all refused nor all empty (runs after the test above)."""
    assert all(count > 500 for count in FOUND.values()), FOUND


MOMENTS = st.datetimes(datetime(1970, 1, 3), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - zoned by `timezones`


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(MOMENTS, MOMENTS, st.booleans()), max_size=40),
    MOMENTS,
    st.integers(1, 30),
    st.integers(0, 5),
    st.sampled_from((0.0, 0.5, 1.0)),
)
def test_invariants_over_nonsense(
    made: list[tuple[datetime, datetime, bool]], now: datetime, daily: int, weekly: int, share: float
) -> None:
    """The same for backups of any dates at all."""
    backups = tuple(
        backup(taken, verified=verified, modified=modified, key=f"k{n}")
        for n, (taken, modified, verified) in enumerate(made)
    )
    holds(Listing(backups), Policy(daily=daily, weekly=weekly, monthly=weekly, max_share=share), now)


@pytest.mark.parametrize("seed", range(12))
def test_a_year_night_by_night(seed: int) -> None:
    """Backed up and cleaned each night, some nights failing: the promised days are there, and no more for ever."""
    chance = random.Random(seed)
    policy = Policy(daily=14, weekly=8, monthly=12)
    here: tuple[Backup, ...] = ()
    for night in range(420):
        now = NOON + timedelta(days=night)
        if chance.random() < 0.9:
            here += (backup(now, verified=False),)
            if chance.random() < 0.9:
                here = (*here[:-1], replace(here[-1], verified=True))
        made = holds(Listing(here), policy, now)
        if made:
            here = after(Listing(here), made).backups
    assert 14 + 8 + 12 - 6 <= len(here) <= 14 * 2 + 8 + 12 + 4
    assert len({(b.taken_at.year, b.taken_at.month) for b in here}) >= 12


def test_what_is_kept_of_a_plain_year() -> None:
    """A year of nights: 30 days, then a backup for each of eight weeks, then one for each of twelve months."""
    made = plan(Listing(nights(400)), ANY, NOON)
    kept = [key for key, reasons in made.keep.items() if "proven daily" in reasons]
    assert len(kept) == 30
    assert sum("weekly" in reasons for reasons in made.keep.values()) == 8
    assert sum("monthly" in reasons for reasons in made.keep.values()) == 12
    assert next(iter(made.keep.values()))[:2] == ("newest", "newest proven")
    assert made.remove[0] == nights(400)[-1], "the oldest goes first"
    assert next(iter(made.lines())).startswith("delete backups/db/2025-02-")


@pytest.mark.parametrize("days", [-20_000, -1, 0, 1, 365, 20_000])
def test_no_rule_asks_the_clock(days: int) -> None:
    """Ahead or behind by years, `now` never removes more; far behind it removes nothing."""
    right = {b.key for b in plan(Listing(nights(100)), ANY, NOON).remove}
    wrong = {b.key for b in plan(Listing(nights(100)), ANY, NOON + timedelta(days=days)).remove}
    assert wrong <= right
    if days == -20_000:
        assert wrong == set()


def test_backups_that_stopped_do_not_grow_old() -> None:
    """Half a year without a backup: those there stay as they are."""
    here = after(Listing(nights(60)), plan(Listing(nights(60)), ANY, NOON))
    assert plan(here, ANY, NOON + timedelta(days=180)).remove == ()


def test_unproven_ones_push_nothing_out() -> None:
    """Two months of backups nobody could prove: every proven day of before is still there."""
    old = nights(14, until=NOON - timedelta(days=60))
    made = plan(Listing((*old, *nights(60, verified=False))), replace(ANY, daily=14), NOON)
    assert {b.key for b in old} <= made.keep.keys()


def test_refusals_say_what_to_do() -> None:
    """An expected backup missing, nothing proven, too large a share: three errors, and none removes anything."""
    with pytest.raises(IncompleteError, match="should be in the bucket and is not listed"):
        plan(Listing(nights(90), expected=frozenset({"backups/db/2026-03-30.sql.gz"})), ANY, NOON)
    with pytest.raises(NothingProvenError, match="verify --all"):
        plan(Listing(nights(90, verified=False)), ANY, NOON)
    with pytest.raises(TooMuchError, match="of 90 backups would go, more than 10%"):
        plan(Listing(nights(90)), replace(ANY, max_share=0.1), NOON)


def test_uploads_of_a_running_backup_stay() -> None:
    """Abandoned uploads are aborted; those of a backup that has run for three days are not, whatever their age."""
    uploads = tuple(
        PendingUpload("backups/db/x.sql.gz", str(h), NOON - timedelta(hours=h)) for h in (1, 23, 25, 70, 80)
    )
    listing = Listing((), uploads=uploads)
    assert [u.id for u in plan(listing, ANY, NOON).abort] == ["25", "70", "80"]
    running = replace(listing, running_since=NOON - timedelta(hours=72))
    assert [u.id for u in plan(running, ANY, NOON).abort] == ["80"]
    assert plan(running, ANY, NOON - timedelta(days=400)).abort == ()
