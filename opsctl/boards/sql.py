"""A named query as Grafana sends it: its parameters become variables, and a filter left empty is none.

Grafana pastes values into the text, so a value is a literal when the statement is planned: `'' = '' OR …` is folded
away, and the planner sees the same statement as the command line's, with the filter or without. `:sqlstring` doubles
quotes; what protects the shop is the role, for a viewer can send any statement at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from opslib.areas.queries import NAMED
from opslib.areas.records import PAGE

PAGES = 20
"""How far back one may leaf; what is older is found by the time."""

FROM, TO = "$__timeFrom()", "$__timeTo()"


@dataclass(frozen=True, slots=True)
class Given:
    """A parameter that is always there, as SQL."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A variable compared with text; empty is no filter."""

    variable: str

    @property
    def literal(self) -> str:
        """It, quoted."""
        return f"${{{self.variable}:sqlstring}}"


@dataclass(frozen=True, slots=True)
class Key:
    """A variable compared with a column whose type is the application's own: uuid, bigint, an enum.

    An empty string is none of those, and would be refused before the empty filter could be folded away. Three literals
    on lines of their own are one, SQL says: `'{}'`, or `'{4711}'`, an array of whatever the column is.

    Attributes:
        needed: Empty is no "any" but nothing: of a board about one thing.
    """

    variable: str
    needed: bool = False

    @property
    def literal(self) -> str:
        """It, quoted."""
        return f"${{{self.variable}:sqlstring}}"

    @property
    def array(self) -> str:
        """It, as an array of one or none."""
        return f"ANY (\n'{{'\n{self.literal}\n'}}')"


Value = Given | Text | Key

PAGE_NUMBER = f"greatest(1, least({PAGES}, ${{page:sqlstring}}::bigint))"
LIMIT = Given(f"({PAGE} * {PAGE_NUMBER})")
"""All pages up to the one asked for."""
TIMES: Mapping[str, Value] = {"from": Given(FROM), "to": Given(TO)}

_FILTER = re.compile(r"^(?P<before>\s*AND )(?P<condition>.*) -- if: (?P<name>\w+)\n", re.MULTILINE)


def asking(query: str, **values: Value) -> str:
    """The text of a named query; filters without a value are left out.

    Raises:
        KeyError: A parameter that is no filter has no value.
    """

    def line(found: re.Match[str]) -> str:
        value = values.get(found["name"])
        if value is None:
            return ""
        condition = _filled(found["condition"], values)
        if not (isinstance(value, Given) or (isinstance(value, Key) and value.needed)):
            condition = f"({value.literal} = '' OR {condition})"
        return f"{found['before']}{condition}\n"

    return _filled(_FILTER.sub(line, NAMED[query].full), values).replace("%%", "%")


def page(text: str, order: str, columns: str = "*") -> str:
    """One page of a statement that answers with all pages up to it."""
    return (
        f"SELECT {columns} FROM (\n{text}\n) found\nORDER BY {order}\nLIMIT {PAGE} OFFSET {PAGE} * ({PAGE_NUMBER} - 1)"
    )


def _filled(text: str, values: Mapping[str, Value]) -> str:
    # What is compared for equality may be of any type; everything else we have is text or given.
    text = re.sub(r"= %\((\w+)\)s", lambda found: _equal(values[found[1]]), text)
    return re.sub(r"%\((\w+)\)s", lambda found: _plain(values[found[1]]), text)


def _equal(value: Value) -> str:
    return f"= {value.array}" if isinstance(value, Key) else f"= {_plain(value)}"


def _plain(value: Value) -> str:
    return value.text if isinstance(value, Given) else f"nullif({value.literal}, '')"
