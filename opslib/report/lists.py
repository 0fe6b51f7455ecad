"""The admin pages: records newest first, a hundred on a page, one chain of pages per filter, CSV and NDJSON beside.

The same named queries as the command line's lists. What is linked to what is known from the rows that are on some page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from opslib.areas import history, records
from opslib.areas.history import Filter
from opslib.areas.records import LISTINGS, PAGE
from opslib.areas.runs import State
from opslib.report import queues
from opslib.report.model import Cell, Column, Gap, Section, Table, TableRow, cell
from opslib.report.sections import trail
from opslib.report.sources import Period, Sources, reading

Row = Mapping[str, Any]

PAGES = 3
"""Of each filter at most; what is older the command line lists."""
LIMIT = PAGE * PAGES

OUTCOMES = ("ok", "duplicate", "error", "invalid")
AUDIT_OUTCOMES = ("allowed", "refused", "failed")


@dataclass(frozen=True, slots=True)
class Listed:
    """One list.

    Attributes:
        name: Of its files.
        title: For people.
        columns: Shown on a page; CSV and NDJSON hold every one of a row's.
        id: The column that names a row.
        filters: Values of its pills.
        fetch: The rows of one filter (None: all), newest first, at most `LIMIT`.
        lead: What it holds.
        older: The command that lists more.
    """

    name: str
    title: str
    columns: Sequence[Column]
    id: str
    filters: Callable[[Sources], Sequence[str]]
    fetch: Callable[[Sources, Period, str | None], Sequence[Row]]
    lead: str
    older: str


@dataclass(slots=True)
class Pages:
    """One list with one filter, read.

    Attributes:
        of: The list.
        filter: None: all.
        rows: Newest first.
        gap: Why there are none, if they could not be read.
    """

    of: Listed
    filter: str | None
    rows: Sequence[Row]
    gap: Gap | None = None

    @property
    def stem(self) -> str:
        """Of its files: `orders-paid`."""
        return self.of.name if self.filter is None else f"{self.of.name}-{_plain(self.filter)}"

    @property
    def count(self) -> int:
        """How many pages; one at least."""
        return max(-(-len(self.rows) // PAGE), 1)

    def file(self, number: int) -> str:
        """The name of page `number`, from 1."""
        return f"{self.stem}.html" if number == 1 else f"{self.stem}.{number}.html"

    def page(self, number: int) -> Sequence[Row]:
        """The rows of page `number`."""
        return self.rows[(number - 1) * PAGE : number * PAGE]


@dataclass(slots=True)
class Library:
    """Every list that was read, and where each record stands.

    Attributes:
        lists: All filters of a list behind each other, the one without first.
    """

    lists: list[list[Pages]]
    _place: dict[tuple[str, str], str] = field(default_factory=dict)
    _of_order: dict[tuple[str, str], str] = field(default_factory=dict)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for every, *_ in self.lists:
            for number in range(1, every.count + 1):
                for place, row in enumerate(every.page(number), 1):
                    href = f"{every.file(number)}#{anchor(every.of, place)}"
                    self._place.setdefault((every.of.name, str(row[every.of.id])), href)
                    if every.of.name in ABOUT and row.get("order_id") is not None:
                        key = (every.of.name, str(row["order_id"]))
                        self._of_order.setdefault(key, href)
                        self._counts[key] = self._counts.get(key, 0) + 1

    def table(self, pages: Pages, number: int) -> Table:
        """One page of a list, linked."""
        rows = [
            TableRow([self._cell(pages.of, column, row) for column in pages.of.columns], anchor(pages.of, place))
            for place, row in enumerate(pages.page(number), 1)
        ]
        name = pages.of.title if pages.filter is None else f"{pages.of.title}, {pages.filter}"
        return Table(f"{name}, page {number} of {pages.count}", pages.of.columns, rows, "None.")

    def _cell(self, of: Listed, column: Column, row: Row) -> Cell:
        value = row.get(column.key)
        if column.key == "order_id" and value is not None:
            if of.name == "orders":
                links = [
                    (f"{title} ({self._counts[name, str(value)]})", self._of_order[name, str(value)])
                    for name, title in ABOUT.items()
                    if (name, str(value)) in self._of_order
                ]
                return cell(str(value), links=links)
            return cell(str(value), href=self._place.get(("orders", str(value)), ""))
        return cell(value, state=column.state)


ABOUT = {"payments": "payments", "webhooks": "events", "reservations": "reservations"}
"""Lists that say which order a row is about, and how an order names them."""


def anchor(of: Listed, place: int) -> str:
    """Where on its page the row of that place is. Not by its id: what others call their things may come twice."""
    return f"{of.name}-{place}"


def _plain(text: str) -> str:
    """Text as a part of a file's name: letters, digits, `-` and `_`, anything else as its code."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f".{ord(c):x}" for c in text)[:80]


def read(sources: Sources, period: Period, section: Section) -> Library:
    """Every list with every filter; what cannot be read is a gap of the section and of its own page."""
    return Library([list(_read(sources, period, section, each)) for each in LISTS])


def _read(sources: Sources, period: Period, section: Section, of: Listed) -> Iterator[Pages]:
    filters: Sequence[str] = ()
    with reading(section, f"the list of {of.title.lower()}"):
        filters = of.filters(sources)
    for wanted in (None, *filters):
        pages = Pages(of, wanted, ())
        known = len(section.gaps)
        with reading(section, f"the list of {of.title.lower()}"):
            pages.rows = of.fetch(sources, period, wanted)
        if len(section.gaps) > known:
            pages.gap = section.gaps[-1]
        yield pages


def _records(
    name: str, filter_: str, *, days: int | None = None
) -> Callable[[Sources, Period, str | None], Sequence[Row]]:
    def fetch(sources: Sources, period: Period, wanted: str | None) -> Sequence[Row]:
        # What no index finds by its filter is looked for within so many days; a rare one would be looked for for ever.
        since = None if days is None else period.until - timedelta(days=days)
        given = {filter_: wanted, "from": since, "to": period.until}
        with sources.app.asking() as connection:
            return records.page(connection, LISTINGS[name], given, limit=LIMIT).rows

    return fetch


def _failed(sources: Sources, period: Period, wanted: str | None) -> Sequence[Row]:
    found = sources.once("redis", lambda: queues.read(sources.settings)).failed
    jobs = [job for queue, each in found.items() if wanted in (None, queue) for job in each]
    jobs = [job for job in jobs if job.finished_at is not None and job.finished_at < period.until]
    jobs.sort(key=lambda job: str(job.finished_at), reverse=True)
    return [
        {
            "id": f"{job.queue}/{job.id}",
            "queue": job.queue,
            "name": job.name,
            "finished_at": job.finished_at,
            "attempts_made": job.attempts_made,
            "reason": job.reason,
        }
        for job in jobs[:LIMIT]
    ]


def _failed_queues(sources: Sources) -> Sequence[str]:
    found = sources.once("redis", lambda: queues.read(sources.settings)).failed
    return [queue for queue, jobs in found.items() if jobs]


def _runs(sources: Sources, period: Period, wanted: str | None) -> Sequence[Row]:
    state = None if wanted is None else State(wanted)
    with sources.ops.asking() as connection:
        return history.page(connection, Filter(state=state, until=period.until), LIMIT).rows


def _audit(sources: Sources, period: Period, wanted: str | None) -> Sequence[Row]:
    nothing = dict.fromkeys(("who", "action", "target", "from", "before"))
    given = {**nothing, "outcome": wanted, "to": period.until, "unfinished": False, "limit": LIMIT}
    # What a command was given may be anything: it stays with `opsctl audit show`.
    hidden = ("payload", "hash", "address")
    return [{k: v for k, v in row.items() if k not in hidden} for row in sources.rows("audit_events", **given)]


def _backups(sources: Sources, period: Period, wanted: str | None) -> Sequence[Row]:
    rows = [row for row in trail.listing(sources) if row["at"] < period.until]
    return [row for row in rows if wanted in (None, row["state"])][:LIMIT]


def _statuses(query: str) -> Callable[[Sources], Sequence[str]]:
    return lambda sources: [row["status"] for row in sources.once(query, lambda: sources.rows(query))]


def _columns(*names: str, state: str = "", numbers: Sequence[str] = ()) -> Sequence[Column]:
    return [Column(n, n.replace("_", " ").capitalize(), state=n == state, number=n in numbers) for n in names]


_UP_TO = "Newest first, up to the end of the day."

LISTS: Sequence[Listed] = (
    Listed(
        "orders",
        "Orders",
        _columns("order_id", "email", "status", "total", "created_at", "source", state="status", numbers=("total",)),
        "order_id",
        _statuses("orders_by_status"),
        _records("orders", "status"),
        _UP_TO,
        "opsctl orders list",
    ),
    Listed(
        "payments",
        "Payments",
        _columns(
            *("payment_id", "order_id", "provider", "external_id", "status", "price_amount", "price_currency"),
            *("pay_amount", "pay_currency", "created_at"),
            state="status",
            numbers=("price_amount", "pay_amount"),
        ),
        "payment_id",
        _statuses("payments_by_status"),
        _records("payments", "status"),
        _UP_TO,
        "opsctl payments list",
    ),
    Listed(
        "webhooks",
        "Webhook log",
        _columns(
            *("event_id", "provider", "event_type", "external_id", "outcome", "payment_status", "order_id", "error"),
            "occurred_at",
            state="outcome",
        ),
        "event_id",
        lambda _: OUTCOMES,
        _records("webhooks", "outcome", days=1),
        "The calls of the day, newest first.",
        "opsctl webhooks list",
    ),
    Listed(
        "reservations",
        "Reservations",
        _columns(
            *("reservation_id", "order_id", "place", "state", "order_status", "reserved_at", "cost_eur"),
            state="state",
            numbers=("cost_eur",),
        ),
        "reservation_id",
        lambda _: ("reserved", "sold"),
        _records("reservations", "state", days=7),
        "Set aside within seven days up to the end of the day, newest first.",
        "opsctl reservations list",
    ),
    Listed(
        "failed-jobs",
        "Failed jobs",
        _columns("id", "queue", "name", "finished_at", "attempts_made", "reason", numbers=("attempts_made",)),
        "id",
        _failed_queues,
        _failed,
        "Jobs of the queues that failed for good and are kept, newest first.",
        "opsctl queues failed QUEUE",
    ),
    Listed(
        "job-runs",
        "Job runs",
        _columns(
            *("id", "job", "state", "slot", "queued", "duration", "attempt", "triggered_by", "error"),
            state="state",
            numbers=("duration", "attempt"),
        ),
        "id",
        lambda _: tuple(State),
        _runs,
        _UP_TO,
        "opsctl jobs history",
    ),
    Listed(
        "backups",
        "Backups",
        _columns(
            *("key", "written", "size", "state", "verified_at", "drilled_at", "drill_seconds", "error"),
            state="state",
            numbers=("size", "drill_seconds"),
        ),
        "key",
        lambda _: ("verified", "unproven", "failed"),
        _backups,
        _UP_TO,
        "opsctl backups list",
    ),
    Listed(
        "audit",
        "Audit",
        _columns("seq", "at", "who", "role", "action", "target", "reason", "outcome", "error", state="outcome"),
        "seq",
        lambda _: AUDIT_OUTCOMES,
        _audit,
        _UP_TO,
        "opsctl audit list",
    ),
)
"""Every list."""
