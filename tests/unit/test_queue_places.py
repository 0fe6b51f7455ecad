"""Where a reader is and what it missed: exact against a model of a stream that is trimmed under it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.areas.queue_places import EMPTY, Gap, Place, Stream, advance, beginning, end, format_id, parse_id, review


class Model:
    """A stream in memory: entry number n has the id n-0."""

    def __init__(self, *, counting: bool = True) -> None:
        self.counting = counting
        self.added = 0
        self.held: list[int] = []

    def add(self, entries: int) -> None:
        """XADD, so many times."""
        self.held += range(self.added + 1, self.added + entries + 1)
        self.added += entries

    def trim(self, keep: int) -> None:
        """XTRIM MAXLEN."""
        self.held = self.held[len(self.held) - keep :] if keep < len(self.held) else self.held

    def read(self, place: Place, count: int) -> list[bytes]:
        """XREAD COUNT behind `place`."""
        return [b"%d-0" % number for number in self.held if number > place.id[0]][:count]

    def info(self) -> Stream:
        """XINFO STREAM."""
        first = (self.held[0], 0) if self.held else None
        return Stream(len(self.held), self.added if self.counting else None, first, (self.added, 0))


step = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 12)),
    st.tuples(st.just("trim"), st.integers(0, 12)),
    st.tuples(st.just("read"), st.integers(1, 8), st.integers(0, 5), st.integers(0, 12)),
)


@given(st.lists(step, max_size=40))
def test_every_entry_is_read_or_known_to_be_lost(steps: list[tuple[int, ...]]) -> None:
    """With Redis 7, read plus lost is all that was ever added, also when trimming goes on between read and question."""
    model, place, read, lost = Model(), beginning(EMPTY, born_later=True), 0, 0
    for kind, *numbers in [*steps, ("add", 1), ("read", 10**6, 0, 10**6)]:
        if kind == "add":
            model.add(numbers[0])
        elif kind == "trim":
            model.trim(numbers[0])
        elif ids := model.read(place, numbers[0]):
            model.add(numbers[1])
            model.trim(numbers[2])
            place, gap = advance(place, ids, model.info())
            read += len(ids)
            lost += gap.lost or 0 if gap else 0
            assert gap is None or gap.lost, "a gap of a counting server has a size"
    assert read + lost == model.added
    assert place.added == model.added


@given(st.lists(step, max_size=40))
def test_redis_6_sees_every_gap(steps: list[tuple[int, ...]]) -> None:
    """Without numbers, whenever an entry was lost a gap is told, of no size."""
    model, place = Model(counting=False), Place()
    for kind, *numbers in steps:
        if kind == "add":
            model.add(numbers[0])
        elif kind == "trim":
            model.trim(numbers[0])
        elif ids := model.read(place, numbers[0]):
            missed = parse_id(ids[0])[0] > place.id[0] + 1 and place.id != (0, 0)
            place, gap = advance(place, ids, model.info())
            assert gap is None or gap.lost is None
            assert gap is not None or not missed


def test_a_stream_begun_anew_is_a_gap_and_is_counted_from_its_beginning() -> None:
    """Obliterated, emptied, or another server: what the old one still held nobody knows, the new one is all counted."""
    old = Model()
    old.add(500)
    place = end(old.info())
    new = Stream(length=3, added=3, first=(900, 0), last=(902, 0))
    moved, gap = advance(place, [b"900-0", b"901-0", b"902-0"], new)
    assert (moved.added, gap) == (3, Gap(None))


@pytest.mark.parametrize("new", [EMPTY, Stream(3, 3, (7, 0), (9, 0)), Stream(3, None, (7, 0), (9, 0))])
def test_a_new_stream_behind_our_place_is_read_from_its_beginning(new: Stream) -> None:
    """A server emptied, or with a clock that is late, must not leave us waiting for ids that never come."""
    place = Place((500, 0), 40, (460, 0))
    moved, gap = review(place, new)
    assert (moved.id, gap) == ((0, 0), Gap(None))
    assert review(moved, new) == (moved, None), "said once"


def test_a_replica_a_little_behind_is_not_counted_twice() -> None:
    """After a fail-over the same stream may end before our place: all of it is counted already."""
    place = Place((500, 0), 40, (460, 0))
    moved, gap = review(place, Stream(36, 36, (460, 0), (495, 0)))
    assert (moved, gap) == (Place((495, 0), 36, (460, 0)), None)


def test_a_silent_stream_stays_where_it_is() -> None:
    """A review of a stream that is as it was changes nothing but what it did not know."""
    model = Model()
    model.add(5)
    place = end(model.info())
    assert review(place, model.info()) == (place, None)
    assert review(Place((5, 0)), model.info()) == (place, None), "the number is learnt"


def test_a_queue_first_seen_begins_at_what_is_there() -> None:
    """History trimmed before we first looked is not lost; of a queue born while we watched it is."""
    model = Model()
    model.add(10)
    model.trim(4)
    assert beginning(model.info(), born_later=False).added == 6
    _, gap = advance(beginning(model.info(), born_later=True), model.read(Place(), 9), model.info())
    assert gap == Gap(6)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.none() | st.integers(0), st.booleans())
def test_a_place_survives_the_checkpoint(ms: int, sequence: int, added: int | None, first: bool) -> None:  # noqa: FBT001
    """Through JSON and back."""
    place = Place((ms, sequence), added, (ms, sequence) if first else None)
    assert Place.from_json(place.to_json()) == place
    assert parse_id(format_id(place.id)) == place.id
