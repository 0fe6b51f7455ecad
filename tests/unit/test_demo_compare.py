"""The check finds what differs, in both directions, and nothing else."""

from __future__ import annotations

import pytest

from demo.compare import Difference, differences
from demo.page import Page
from demo.truth import Truth, series, show

IPN = series("bitloot_ipn_total", status="ok")
AGE = series("bitloot_queue_oldest_waiting_age_seconds", queue="a")
PAGE = """\
# TYPE bitloot_ipn_total counter
bitloot_ipn_total{status="ok"} 3
bitloot_ipn_total{status="invalid"} 0
# TYPE bitloot_job_wait_seconds histogram
bitloot_job_wait_seconds_bucket{le="+Inf",name="n",queue="a"} 2
bitloot_job_wait_seconds_count{name="n",queue="a"} 2
bitloot_job_wait_seconds_sum{name="n",queue="a"} 0.5
# TYPE bitloot_queue_oldest_waiting_age_seconds gauge
bitloot_queue_oldest_waiting_age_seconds{queue="a"} 12.5
"""
WAIT = series("bitloot_job_wait_seconds_count", queue="a", name="n")


def test_a_page_that_tells_the_truth_has_no_differences() -> None:
    """Zeros nobody expects are fine, and so is the order of labels."""
    assert differences({IPN: 3, WAIT: 2}, {AGE: (0, 13)}, Page.parse(PAGE)) == []


@pytest.mark.parametrize(
    ("exact", "ages", "found"),
    [
        ({IPN: 4, WAIT: 2}, {AGE: (0, 13)}, Difference(IPN, 4, 3)),
        ({IPN: 3}, {AGE: (0, 13)}, Difference(WAIT, None, 2)),
        ({IPN: 3, WAIT: 2}, {AGE: (0, 12)}, Difference(AGE, (0, 12), 12.5)),
        ({IPN: 3, WAIT: 2}, {}, Difference(AGE, None, 12.5)),
        (
            {IPN: 3, WAIT: 2, series("bitloot_underpaid_total"): 1},
            {AGE: (0, 13)},
            Difference(series("bitloot_underpaid_total"), 1, None),
        ),
    ],
)
def test_every_kind_of_difference_is_found(exact: dict, ages: dict, found: Difference) -> None:
    """A wrong value, an absent one, an unexpected one, an age too great."""
    assert differences(exact, ages, Page.parse(PAGE)) == [found]


def test_a_collector_that_is_down_and_a_family_nobody_knows_are_differences() -> None:
    """Neither can hide behind the numbers that agree."""
    page = Page.parse('ops_collector_up{collector="x"} 0\nbitloot_new_thing 0\nops_other 5\n')
    assert [show(difference.of) for difference in differences({}, {}, page)] == [
        "bitloot_new_thing",
        'ops_collector_up{collector="x"}',
    ]


def test_a_job_counts_its_runs() -> None:
    """A job that fails twice of three has two retries, three waits, one duration, and completes."""
    truth = Truth()
    truth.job("q", "n", attempts=3, failures=2)
    truth.job("q", "n", attempts=3, failures=3)
    assert truth.counters == {
        series("bitloot_queue_jobs_total", queue="q", result="completed", name="n"): 1,
        series("bitloot_queue_jobs_total", queue="q", result="failed", name="n"): 1,
        series("bitloot_queue_retries_total", queue="q", name="n"): 4,
        series("bitloot_job_wait_seconds_count", queue="q", name="n"): 6,
        series("bitloot_job_duration_seconds_count", queue="q", name="n"): 2,
    }
