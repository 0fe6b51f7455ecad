"""What is shown is what was committed, and nothing is lost between."""

from __future__ import annotations

import pytest

from opslib.exposition import Page
from opslib.packed import plain
from opslib.spec import Counter, Histogram, Metric, Sample
from opslib.tally import Tally, series_name

JOBS = Counter("test_jobs_total", "Jobs.", ("queue",))
SECONDS = Histogram("test_seconds", "Durations.", buckets=(1, 5))
METRICS: tuple[Metric, ...] = (JOBS, SECONDS)


def shown(tally: Tally) -> dict[str, tuple[float, ...]]:
    """The page's values by series, which the written blocks show as well."""
    pages = Page(), Page()
    pages[0].add(tally.samples())
    pages[1].add(tally.blocks())
    sampled, written = [sorted(plain(page.pieces()).splitlines()) for page in pages]
    assert sampled == written
    return {series_name((sample.metric, sample.labels)): sample.value for sample in tally.samples()}


def test_without_a_store_counts_show_at_once() -> None:
    """Ordinary counters."""
    tally = Tally(METRICS, durable_only=False)
    tally.add(JOBS, "a")
    tally.observe(SECONDS, 1)
    tally.observe(SECONDS, 7)
    assert shown(tally) == {'["test_jobs_total", "a"]': (1,), '["test_seconds"]': (1, 0, 1, 8)}


def test_with_a_store_only_what_was_committed_shows() -> None:
    """A count made while another is being saved waits for the next save."""
    tally = Tally(METRICS, durable_only=True)
    tally.add(JOBS, "a")
    taken = tally.take()
    tally.add(JOBS, "a")
    assert shown(tally) == {}
    tally.commit(taken)
    assert shown(tally) == {'["test_jobs_total", "a"]': (1,)}
    tally.commit(tally.take())
    assert shown(tally) == {'["test_jobs_total", "a"]': (2,)}
    assert tally.take() == {}


def test_a_failed_save_is_taken_again_with_what_came_since() -> None:
    """Values are absolute, so saving twice counts once."""
    tally = Tally(METRICS, durable_only=True)
    tally.add(JOBS, "a")
    taken = tally.take()
    tally.add(JOBS, "b")
    tally.put_back(taken)
    tally.add(JOBS, "a")
    assert {series_name(key): value for key, value in tally.take().items()} == {
        '["test_jobs_total", "a"]': (2,),
        '["test_jobs_total", "b"]': (1,),
    }


def test_restore_goes_on_from_the_saved_values_and_ignores_what_it_no_longer_knows() -> None:
    """A family that was removed, relabelled or re-bucketed does not come back half."""
    tally = Tally(METRICS, durable_only=True)
    tally.add(JOBS, "lost")
    tally.restore(
        {
            '["test_jobs_total", "a"]': [4],
            '["test_seconds"]': [1, 2],
            '["test_jobs_total", "a", "b"]': [9],
            '["test_gone_total"]': [9],
        }
    )
    tally.add(JOBS, "a")
    assert shown(tally) == {'["test_jobs_total", "a"]': (4,)}
    tally.commit(tally.take())
    assert shown(tally) == {'["test_jobs_total", "a"]': (5,)}


def test_labels_must_be_those_declared() -> None:
    """A typo in a label is an error, not a new series."""
    with pytest.raises(ValueError, match="test_jobs_total has the labels"):
        JOBS(1, que="a")
    assert JOBS(1, queue="a") == Sample(JOBS, ("a",), (1.0,))
