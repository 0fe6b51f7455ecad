"""Every page is read back by the reference parsers, whatever the labels hold."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from opslib.exposition import Block, Family, Page, Sheet
from opslib.packed import gzipped, plain
from opslib.spec import Counter, Gauge, Histogram, Sample

WAITING = Gauge("test_waiting", 'Jobs waiting; a "help" with \\ and\nnewline.', ("queue",))
JOBS = Counter("test_jobs_total", "Jobs.", ("queue", "name"))
SECONDS = Histogram("test_seconds", "Durations.", ("queue",), buckets=(0.05, 1, 10))
PLAIN = Counter("test_plain_total", "No labels.")

HOSTILE = st.text(max_size=20) | st.sampled_from(['"', "\\", "\n", "{}", "a,b", "é", "🚀", "\\n", '\\"', "\x00", ""])


def written(page: Page, *, openmetrics: bool = False) -> str:
    """The page, which is the same when it comes compressed: as one gzip member, for clients that know no other."""
    pieces = page.pieces(openmetrics=openmetrics)
    for _ in range(2):  # the second time from what was kept
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        assert stream.decompress(gzipped(pieces)) == plain(pieces)
        assert (stream.eof, stream.unused_data) == (True, b"")
    return plain(pieces).decode()


def rendered(*samples: Sample, openmetrics: bool) -> str:
    """One page of `samples`."""
    page = Page()
    page.add(samples)
    text = written(page, openmetrics=openmetrics)
    return text + "# EOF\n" if openmetrics else text


@given(HOSTILE, st.floats(allow_nan=False))
def test_labels_and_values_survive_both_parsers(label: str, value: float) -> None:
    """What is written is what is read, in both formats."""
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        (family,) = parse(rendered(WAITING(value, queue=label), openmetrics=openmetrics))
        (sample,) = family.samples
        assert (sample.labels["queue"], sample.value) == (label, value)


def test_a_lone_surrogate_is_shown_escaped() -> None:
    """A label that is not text cannot break the page."""
    (family,) = parse_text(rendered(WAITING(1, queue="a\udcffb"), openmetrics=False))
    assert family.samples[0].labels["queue"] == r"a\udcffb"


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0, 1e6))
def test_histogram_is_cumulative_with_count_and_sum(counts: list[int], total: float) -> None:
    """Buckets add up to the count; bounds are canonical floats in both formats."""
    state = (*map(float, counts), total)
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        (family,) = parse(rendered(SECONDS(state, queue="q"), openmetrics=openmetrics))
        values = {s.labels.get("le", s.name): s.value for s in family.samples}
        assert [values[le] for le in ("0.05", "1.0", "10.0", "+Inf")] == [sum(counts[: i + 1]) for i in range(4)]
        assert values["test_seconds_count"] == sum(counts)
        assert values["test_seconds_sum"] == total


def test_families_of_two_collectors_stand_once_and_duplicates_are_dropped() -> None:
    """Samples of one family given in two portions stand together; a second value for a series is counted, not shown."""
    page = Page()
    page.add([JOBS(1, queue="a", name="x"), PLAIN(5)])
    page.add([JOBS(2, queue="b", name="x"), JOBS(9, queue="a", name="x")])
    text = written(page)
    assert text.count("# TYPE test_jobs_total counter") == 1
    assert 'test_jobs_total{queue="a",name="x"} 1\ntest_jobs_total{queue="b",name="x"} 2\n' in text
    assert page.dropped == 1


def test_openmetrics_names_a_counters_family_without_total() -> None:
    """OpenMetrics wants the suffix on the sample only."""
    text = rendered(PLAIN(3), openmetrics=True)
    assert "# TYPE test_plain counter" in text
    assert "test_plain_total 3" in text


def test_special_values() -> None:
    """Infinity and NaN are spelled as Prometheus spells them; whole numbers stay whole."""
    text = rendered(
        WAITING(float("inf"), queue="a"), WAITING(float("nan"), queue="b"), WAITING(2**40, queue="c"), openmetrics=False
    )
    assert [line.split()[-1] for line in text.splitlines()[2:]] == ["+Inf", "NaN", "1099511627776"]


@given(st.lists(st.tuples(HOSTILE, st.integers(0, 3), st.floats(0, 1e6)), max_size=12))
def test_a_sheet_reads_as_the_last_values_written_to_it(writes: list[tuple[str, int, float]]) -> None:
    """Whatever was written before, and however often it was read between, the page is that of the last values."""
    sheet, last = Sheet(), {}
    for label, count, total in writes:
        values = {(SECONDS, (label,)): (count, 1, 0, 2, total), (JOBS, (label, "%d")): (float(count),)}
        sheet.write(values.items())
        last.update(values)
        sheet.blocks()
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        page = Page()
        page.add(sheet.blocks())
        text = written(page, openmetrics=openmetrics) + ("# EOF\n" if openmetrics else "")
        list(parse(text))
        expected = rendered(*(Sample(*key, value) for key, value in last.items()), openmetrics=openmetrics)
        assert sorted(text.splitlines()) == sorted(expected.splitlines())


def test_a_block_without_lines_leaves_no_family_behind() -> None:
    """A family announced with no series would only make the page longer."""
    page = Page()
    page.add([Block(WAITING, ())])
    assert written(page) == ""


@given(st.lists(st.dictionaries(HOSTILE, st.integers(0, 3) | st.floats(allow_nan=False), max_size=4), max_size=6))
def test_a_family_written_again_reads_as_written_for_the_first_time(rows: list[dict[str, float]]) -> None:
    """Whatever came before: the same labels, other labels, the same values, none."""
    family = Family(WAITING)
    for row in rows:
        page = Page()
        page.add([family.block(row, row.values())])
        assert written(page) == rendered(
            *(WAITING(value, queue=name) for name, value in row.items()), openmetrics=False
        )
