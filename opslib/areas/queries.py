"""The named queries: each `*.sql` beside this module, split at its `-- name:` lines.

A query is written once and read by whoever needs it: exporters, CLI, boards, reports. It names canonical views
(`ops_view`) or our own tables (`ops`), never the application's; a test explains each of them without sequential scans.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

Where = Literal["app", "ops"]


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One statement.

    Attributes:
        name: Unique among all.
        database: `app` reads the application's views, `ops` our own tables.
        doc: What it answers.
        full: The statement, with `%(name)s` parameters, and with every line.
    """

    name: str
    database: Where
    doc: str
    full: str

    @property
    def sql(self) -> str:
        """The statement without any filter."""
        return self.asking(())

    def asking(self, filters: Collection[str]) -> str:
        """The statement with the lines of these filters: those that end in `-- if: NAME`.

        A line that is left out costs nothing; a condition that is always true would keep the planner off its index.
        """
        return _IF.sub(lambda line: line[0] if line["filter"] in filters else "", self.full)


_HEAD = re.compile(r"^-- name: (?P<name>\w+)\n-- database: (?P<database>app|ops)\n(?P<doc>(?:-- .*\n)*)", re.MULTILINE)


_IF = re.compile(r"^.* -- if: (?P<filter>\w+)\n", re.MULTILINE)


def parse(text: str) -> Iterator[NamedQuery]:
    """The queries in one file's text, in order."""
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        doc = " ".join(line.removeprefix("-- ") for line in head["doc"].splitlines())
        sql = text[head.end() : end].strip().removesuffix(";")
        yield NamedQuery(head["name"], cast(Where, head["database"]), doc, sql)


def _load() -> Mapping[str, NamedQuery]:
    files = sorted(Path(__file__).parent.glob("*.sql"))
    return MappingProxyType({query.name: query for file in files for query in parse(file.read_text("utf-8"))})


NAMED = _load()

_NOON = datetime.fromisoformat("2026-01-01T12:00:00+00:00")

# One plausible value per parameter name, for explaining a query without running it.
SAMPLE: Mapping[str, Any] = MappingProxyType(
    {
        "family": "webhook",
        "exporter": "app/default",
        "since": _NOON - timedelta(minutes=15),
        "until": _NOON,
        "settle": timedelta(seconds=60),
        "slice": 50_000,
        "provider": "kinguin",
        "currency": "EUR",
        "tables": ["orders"],
        "run": 1,
        "source": "webhook_logs",
        "day": _NOON.date(),
        "first": _NOON.date(),
        "last": _NOON.date(),
        # Of users, whose page is a function's business.
        **dict.fromkeys(("role", "suspended", "from", "to", "after_at", "after_id")),
        "order": None,
        "email": "anna@example.com",
        "externals": ["4711"],
        "limit": 100,
        "ids": "{}",
    }
)
