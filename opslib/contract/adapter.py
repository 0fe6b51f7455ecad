"""Reads an adapter: the one SQL file that knows an application's tables, split into blocks that stand or fall alone.

See the head of `adapters/bitloot.sql` for the rules such a file keeps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from opslib.contract import canonical, indexes
from opslib.contract.indexes import Index
from opslib.errors import ContractError

Kind = Literal["function", "view", "write", "grants", "values"]

DEFAULT = Path(__file__).parent / "adapters" / "bitloot.sql"

_HEAD = re.compile(r"^-- (?P<kind>function|view|write|grants|values): (?P<name>[\w.]+)\n", re.MULTILINE)
_KNOWN = re.compile(r"^-- known: (?P<words>.+)\n", re.MULTILINE)
_BIG = re.compile(r"^-- big: (?P<names>.+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One part of an adapter.

    Attributes:
        kind: `function`, `view`, `write` and `grants` are run by apply; `values` is a query, run by check.
        name: The object, or for `values` the canonical `view.column`.
        sql: Its statements.
        known: For `values`: what the query may answer.
    """

    kind: Kind
    name: str
    sql: str
    known: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """For messages."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An application's adapter.

    Attributes:
        name: The application.
        file: The file's name, for messages.
        checksum: The sha256 of its text, in hex.
        blocks: In the order they run.
        big: Tables of the application that grow without bound: no query of ours may scan one from end to end.
        indexes: What our queries rely on, and what is only advised.
    """

    name: str
    file: str
    checksum: str
    blocks: tuple[Block, ...]
    big: frozenset[str]
    indexes: tuple[Index, ...]

    def of(self, *kinds: Kind) -> Iterator[Block]:
        """The blocks of these kinds, in order."""
        return (block for block in self.blocks if block.kind in kinds)


def load(path: Path = DEFAULT) -> Adapter:
    """Read an adapter.

    Raises:
        ContractError: It does not provide each canonical view and each write function exactly once.
    """
    text = path.read_text("utf-8").replace("\r\n", "\n")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    blocks = tuple(
        _block(cast(Kind, head["kind"]), head["name"], text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    )
    for kind, what, needed in (("view", "views", canonical.VIEWS), ("write", "write functions", canonical.WRITES)):
        found = sorted(block.name for block in blocks if block.kind == kind)
        if found != sorted(needed):
            raise ContractError(
                f"{path.name}: its {what} are {', '.join(found)}; it needs {', '.join(needed)}, once each"
            )
    big = _BIG.search(text)
    return Adapter(
        name=path.stem,
        file=path.name,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        blocks=blocks,
        big=frozenset(big["names"].split(", ")) if big else frozenset(),
        indexes=indexes.declared(text),
    )


def _block(kind: Kind, name: str, sql: str) -> Block:
    known = _KNOWN.search(sql)
    return Block(kind, name, sql.strip(), frozenset(known["words"].split()) if known else frozenset())
