"""Rows counted as a dump goes by, and the gzip stream made of its blocks."""

from __future__ import annotations

import fcntl
import gzip
import random
from pathlib import Path

import pytest

from opslib.areas.dump import BLOCK_BYTES, Dump, Gzip, RowCounter
from opslib.areas.pg_tools import Tools

HEAD = "\n--\n-- Data for Name: {name}; Type: TABLE DATA; Schema: public; Owner: x\n--\n\n"
END = "\\.\n\n\n"


def a_dump(chance: random.Random) -> tuple[bytes, dict[tuple[str, str], int]]:
    """A dump of some tables, of short rows, wide ones and both, with what looks like an end in the middle of lines."""
    parts, rows = ["--\n-- PostgreSQL database dump\n--\n"], {}
    for number in range(chance.randrange(6)):
        name = f"t{number}"
        widths = chance.choice([(0, 1, 3), (300, 900), (0, 20, 700)])
        lines = [
            chance.choice(["", "x\\\\.", "\\N\t\\\\.", "--"]) + "y" * chance.choice(widths)
            for _ in range(chance.randrange(60))
        ]
        parts += [HEAD.format(name=name), f"COPY public.{name} (a, b) FROM stdin;\n", *(f"{x}\n" for x in lines), END]
        rows["public", name] = len(lines)
    parts.append("--\n-- PostgreSQL database dump complete\n--\n\n")
    return "".join(parts).encode(), rows


@pytest.mark.parametrize("seed", range(40))
def test_counts_however_cut(seed: int) -> None:
    """Whatever the blocks' sizes and the rows' widths, every row is counted once, and the end is seen."""
    chance = random.Random(seed)
    dump, rows = a_dump(chance)
    for most in (3, 7, 400, 5_000, len(dump)):
        counter, at = RowCounter(), 0
        while at < len(dump):
            size = chance.randint(1, most)
            counter.feed(dump[at : at + size])
            at += size
        assert counter.tables == rows
        assert counter.complete


def test_gzip_is_one_member() -> None:
    """What blocks of any size are made into, gzip reads as what went in."""
    blocks = [random.Random(n).randbytes(n * 1_000) + b"row\n" * n for n in range(40)]
    packed = Gzip()
    stream = b"".join(packed.compress(blocks))
    assert gzip.decompress(stream) == b"".join(blocks)
    assert packed.size == sum(map(len, blocks))


@pytest.mark.parametrize("roomy", [True, False])
def test_blocks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, roomy: bool) -> None:
    """However small and late the pieces come, every block but the last is whole, and nothing is lost at a pause."""
    if not roomy:  # as a kernel answers whose pipes are all used up

        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(fcntl, "fcntl", refuse)
    content = b"".join(b"%d\n" % n for n in range(500_000))
    (tmp_path / "content").write_bytes(content)
    script = tmp_path / "pg_dump"
    script.write_text(
        f"#!/bin/sh\nhead -c 5 {tmp_path}/content; sleep 0.1; tail -c +6 {tmp_path}/content | dd bs=4096\n"
    )
    script.chmod(0o700)
    for _ in range(2):
        with Dump(Tools(tmp_path, "18.4", 18), {"PATH": "/usr/bin:/bin"}) as dump:
            blocks = list(dump.blocks())
        assert b"".join(blocks) == content
        assert {len(block) for block in blocks[:-1]} == {BLOCK_BYTES}
