"""From stream entries to facts: the sequences real BullMQ writes, and whatever else may stand in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.areas.queue_events import Fact, Kind, Tracker

Line = tuple[int, str]


def entries(*lines: Line) -> list[list[object]]:
    """Stream entries from (ms, "event jobId name-or-prev-or-delay") as BullMQ orders the fields."""
    third = {"added": "name", "delayed": "delay", "completed": "returnvalue", "failed": "failedReason"}
    result: list[list[object]] = []
    for number, (at, text) in enumerate(lines):
        event, _, rest = text.partition(" ")
        job, _, value = rest.partition(" ")
        fields = ["event", event]
        if job:
            fields += ["jobId", job]
        if value:
            fields += [third.get(event, "prev"), value]
        result.append([f"{at}-{number}".encode(), [field.encode() for field in fields]])
    return result


def facts(*lines: Line) -> list[tuple[Kind, bytes | None, float | None]]:
    """What a fresh tracker makes of them: kind, name, seconds."""
    found, taken = Tracker().feed(entries(*lines), more=False)
    assert taken == len(lines)
    return [(fact.kind, fact.name, fact.seconds) for fact in found]


# Each as observed with bullmq 5.63.0 and 6.7.0 (Node) and 3.4.4 (Python); tests/service replays them live.
SEQUENCES = {
    "plain": (
        [
            (1000, "added 1 reserve"),
            (1000, "waiting 1"),
            (1040, "active 1 waiting"),
            (1290, "completed 1 r"),
            (1290, "drained"),
        ],
        [(Kind.STARTED, b"reserve", 0.04), (Kind.COMPLETED, b"reserve", 0.25)],
    ),
    "delayed waits since it was due, not since it was added or moved": (
        [
            (1000, "added 1 a"),
            (1000, "delayed 1 5000"),
            (5400, "waiting 1 delayed"),
            (5500, "active 1 waiting"),
            (5600, "completed 1 r"),
        ],
        [(Kind.STARTED, b"a", 0.5), (Kind.COMPLETED, b"a", 0.1)],
    ),
    "promoted before it was due": (
        [(1000, "added 1 a"), (1000, "delayed 1 90000"), (2000, "waiting 1 delayed"), (2300, "active 1 waiting")],
        [(Kind.STARTED, b"a", 0.3)],
    ),
    "delay changed while delayed is no retry": (
        [(1000, "added 1 a"), (1000, "delayed 1 90000"), (1100, "delayed 1 2000"), (2500, "active 1 waiting")],
        [(Kind.STARTED, b"a", 0.5)],
    ),
    "retry without back-off, then the final failure": (
        [
            (1000, "added 1 a"),
            (1000, "waiting 1"),
            (1010, "active 1 waiting"),
            (1020, "waiting 1 active"),
            (1050, "active 1 waiting"),
            (1150, "failed 1 boom"),
            (1150, "retries-exhausted 1 2"),
        ],
        [(Kind.STARTED, b"a", 0.01), (Kind.RETRIED, b"a", None), (Kind.STARTED, b"a", 0.03), (Kind.FAILED, b"a", 0.1)],
    ),
    "retry with back-off": (
        [
            (1000, "added 1 a"),
            (1000, "waiting 1"),
            (1000, "active 1 waiting"),
            (1010, "delayed 1 3010"),
            (3300, "waiting 1 delayed"),
            (3310, "active 1 waiting"),
            (3400, "completed 1 r"),
        ],
        [
            (Kind.STARTED, b"a", 0.0),
            (Kind.RETRIED, b"a", None),
            (Kind.STARTED, b"a", 0.3),
            (Kind.COMPLETED, b"a", 0.09),
        ],
    ),
    "retried by hand: no retry of the queue's, but the name is still known": (
        [
            (1000, "added 1 a"),
            (1000, "waiting 1"),
            (1000, "active 1 waiting"),
            (1100, "failed 1 boom"),
            (9000, "waiting 1 failed"),
            (9010, "active 1 waiting"),
            (9020, "completed 1 r"),
        ],
        [
            (Kind.STARTED, b"a", 0.0),
            (Kind.FAILED, b"a", 0.1),
            (Kind.STARTED, b"a", 0.01),
            (Kind.COMPLETED, b"a", 0.01),
        ],
    ),
    "stalled: the waiting before it is no retry": (
        [
            (1000, "added 1 a"),
            (1000, "waiting 1"),
            (1000, "active 1 waiting"),
            (31000, "waiting 1 active"),
            (31000, "stalled 1"),
            (31500, "active 1 waiting"),
            (31600, "completed 1 r"),
        ],
        [
            (Kind.STARTED, b"a", 0.0),
            (Kind.STALLED, b"a", None),
            (Kind.STARTED, b"a", 0.5),
            (Kind.COMPLETED, b"a", 0.1),
        ],
    ),
    "a flow's parent waits only once its children are done": (
        [
            (1000, "added p parent"),
            (1000, "waiting-children p"),
            (8000, "waiting p waiting-children"),
            (8020, "active p waiting"),
            (8030, "completed p r"),
        ],
        [(Kind.STARTED, b"parent", 0.02), (Kind.COMPLETED, b"parent", 0.01)],
    ),
    "an id used again is another job": (
        [
            (1000, "added x one"),
            (1001, "removed x wait"),
            (5000, "added x two"),
            (5000, "waiting x"),
            (5010, "active x waiting"),
            (5020, "completed x r"),
        ],
        [(Kind.STARTED, b"two", 0.01), (Kind.COMPLETED, b"two", 0.01)],
    ),
    "beginnings that were not seen are not guessed": (
        [(1000, "completed 1 r"), (1000, "failed 2 boom"), (1010, "active 3 waiting"), (1030, "completed 3 r")],
        [
            (Kind.COMPLETED, None, None),
            (Kind.FAILED, None, None),
            (Kind.STARTED, None, None),
            (Kind.COMPLETED, None, 0.02),
        ],
    ),
    "nothing happened": (
        [(1000, "paused"), (1000, "progress 1 5"), (1000, "duplicated 1"), (1000, "cleaned"), (1000, "drained")],
        [],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    """What real BullMQ writes means what it means."""
    lines, expected = SEQUENCES[name]
    assert facts(*lines) == expected


def test_a_full_batch_may_end_between_waiting_and_stalled() -> None:
    """A `waiting` from `active` whose successor is not read yet is left for the next batch."""
    all_entries = entries((1000, "active 1 waiting"), (2000, "waiting 1 active"), (2000, "stalled 1"))
    tracker = Tracker()
    found, taken = tracker.feed(all_entries[:2], more=True)
    assert (len(found), taken) == (1, 1)
    found, taken = tracker.feed(all_entries[1:], more=False)
    assert [fact.kind for fact in found] == [Kind.STALLED]


def test_rotation_forgets_only_what_was_silent_for_two_generations() -> None:
    """Memory is bounded; a job heard of meanwhile keeps its name."""
    tracker = Tracker()
    tracker.feed(entries((1, "added old a"), (1, "added kept b")), more=False)
    tracker.rotate()
    tracker.feed(entries((2, "active kept waiting")), more=False)
    tracker.rotate()
    found, _ = tracker.feed(entries((3, "completed kept r"), (3, "completed old r")), more=False)
    assert [fact.name for fact in found] == [b"b", None]


def test_ready_since_is_what_the_events_say() -> None:
    """A job retried by hand is ready since then, whatever its hash says; one under way is not waiting."""
    tracker = Tracker()
    tracker.feed(entries((1000, "added 1 a"), (1000, "waiting 1"), (1010, "active 1 waiting")), more=False)
    assert tracker.ready_since(b"1") is None
    tracker.feed(entries((1020, "failed 1 boom"), (9000, "waiting 1 failed")), more=False)
    assert tracker.ready_since(b"1") == 9000
    assert tracker.ready_since(b"unheard of") is None


EVENTS = ["added", "waiting", "active", "delayed", "completed", "failed", "stalled", "waiting-children", "removed", "x"]
lines = st.lists(
    st.tuples(
        st.integers(1, 10**13),
        st.builds(
            "{} {} {}".format,
            st.sampled_from(EVENTS),
            st.sampled_from("123"),
            st.sampled_from(["", "active", "delayed", "failed", "name", "12", "9e999", "nan"]),
        ),
    ),
    max_size=30,
)


@given(lines, st.lists(st.integers(1, 7), min_size=1))
def test_batches_do_not_matter(some: list[Line], sizes: list[int]) -> None:
    """However a stream is cut into batches, the facts are the same, each once."""
    # A script's events are never torn apart: `stalled` is in the stream when `waiting` is.
    everything = entries(*some)
    whole, _ = Tracker().feed(everything, more=False)
    tracker, pieces, at, turn = Tracker(), list[Fact](), 0, 0
    while at < len(everything):
        size = sizes[turn % len(sizes)] + 1  # of one entry nothing might be taken
        batch = everything[at : at + size]
        found, taken = tracker.feed(batch, more=at + size < len(everything))
        pieces += found
        at += taken
        turn += 1
    assert pieces == whole


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**15), st.lists(st.binary(max_size=8) | st.sampled_from([b"event", b"jobId", b"added"]))
        )
    )
)
def test_strange_entries_are_passed_over(strange: list[tuple[int, list[bytes]]]) -> None:
    """Anybody may XADD anything to a stream; nothing of it stops the tail."""
    raw = [[b"%d-0" % at, fields] for at, fields in strange]
    found, taken = Tracker().feed(raw, more=False)
    assert taken == len(raw)
    assert all(fact.seconds is None or fact.seconds >= 0 for fact in found)
