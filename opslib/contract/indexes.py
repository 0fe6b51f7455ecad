"""The indexes our queries rely on: which the adapter names, which are there, and how to make the others.

The application owns its tables and may drop an index in any release. Then our queries read a whole table every few
seconds, which nobody sees until the table is big: so what is missing is said, with the statement that mends it.
Whichever name an index has, it serves when its first columns are the ones we need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LINE = re.compile(
    r"^-- (?P<need>index|advice): (?P<table>\w+) \((?P<columns>[^)]+)\) for (?P<serves>[\w ]+)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Index:
    """One index of the application's that we need.

    Attributes:
        table: The application's table, in schema `public`.
        columns: As SQL, in order: quoted where the name needs it.
        serves: The named queries that read it; for advice, what it makes quicker.
        optional: Nothing of ours runs regularly without it.
    """

    table: str
    columns: tuple[str, ...]
    serves: tuple[str, ...]
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The columns as the catalog has them."""
        return tuple(column.strip('"') for column in self.columns)

    @property
    def name(self) -> str:
        """What we call it when we make it: ours, so that a migration of the application never meets the same name."""
        return "_".join(("ops", self.table, *self.names)).lower()

    @property
    def statement(self) -> str:
        """Makes it while the application goes on reading and writing."""
        return f"CREATE INDEX CONCURRENTLY {self.name} ON public.{self.table} ({', '.join(self.columns)})"


@dataclass(frozen=True, slots=True)
class Missing:
    """An index that is not there, or not usable.

    Attributes:
        index: Which.
        leftovers: Invalid indexes on the same columns, which every write pays for and no query uses.
        building: One of them is being built at this moment.
    """

    index: Index
    leftovers: tuple[str, ...] = ()
    building: bool = False

    @property
    def statements(self) -> tuple[str, ...]:
        """What to run, in order, each outside a transaction."""
        if self.building:
            return ()
        return (*map(drop, self.leftovers), self.index.statement)

    @property
    def problem(self) -> str:
        """For people."""
        if self.building:
            return f"the index on {self._where} is being built"
        if self.leftovers:
            return (
                f"the index on {self._where} is invalid: an aborted CREATE INDEX CONCURRENTLY left "
                f"{', '.join(self.leftovers)}"
            )
        return f"no index on {self._where}"

    @property
    def _where(self) -> str:
        return f"{self.index.table} ({', '.join(self.index.columns)})"


def drop(name: str) -> str:
    """Removes an index while the application goes on."""
    return 'DROP INDEX CONCURRENTLY public."{}"'.format(name.replace('"', '""'))


def declared(text: str) -> tuple[Index, ...]:
    """The indexes an adapter's text names, in order."""
    return tuple(
        Index(
            table=line["table"],
            columns=tuple(column.strip() for column in line["columns"].split(",")),
            serves=tuple(line["serves"].split()),
            optional=line["need"] == "advice",
        )
        for line in LINE.finditer(text)
    )


def missing(wanted: Iterable[Index], live: Sequence[Mapping[str, Any]]) -> list[Missing]:
    """Which of `wanted` no valid index serves.

    Args:
        wanted: What is needed.
        live: The answer of the named query `contract_indexes`.
    """
    found = []
    for index in wanted:
        fitting = [
            row
            for row in live
            if row["table"] == index.table and tuple(row["columns"][: len(index.names)]) == index.names
        ]
        if not any(row["valid"] for row in fitting):
            found.append(
                Missing(index, tuple(row["name"] for row in fitting), building=any(row["building"] for row in fitting))
            )
    return found


def tables(wanted: Iterable[Index]) -> list[str]:
    """The parameter of `contract_indexes`."""
    return sorted({index.table for index in wanted})
