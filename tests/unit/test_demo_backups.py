"""What the demo's check expects of backups comes from the files themselves."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

from demo.backups import Kept
from demo.truth import series

COUNT = series("bitloot_backups", manifest="yes")


def _dump(folder: Path, name: str, rows: int, at: int) -> Path:
    path = folder / f"{name}.sql.gz"
    path.write_bytes(gzip.compress(os.urandom(rows) + b"\n-- PostgreSQL database dump complete\n--\n"))
    _manifest(path)
    os.utime(path, (at, at))
    return path


def _manifest(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.json").write_text(json.dumps({"sha256": digest}))


def test_only_whole_ones_count(tmp_path: Path) -> None:
    """None, one, two; one that was altered, or ends too early, is none."""
    kept = Kept(tmp_path)
    assert (kept.exact(), kept.times()) == ({}, {})
    first = _dump(tmp_path, "2026-11-20", 1000, at=100)
    assert kept.exact()[COUNT] == 1
    second = _dump(tmp_path, "2026-11-21", 2000, at=200)
    expected = kept.exact()
    assert expected[COUNT] == 2
    assert (
        expected[
            series(
                "bitloot_backup_newest_bytes",
            )
        ]
        == second.stat().st_size
    )
    assert expected[series("bitloot_backup_size_ratio")] == second.stat().st_size / first.stat().st_size
    assert kept.times() == {series("bitloot_backup_newest_timestamp_seconds"): (198, 202)}
    whole = second.read_bytes()
    second.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert kept.exact()[COUNT] == 1
    second.write_bytes(gzip.compress(b"COPY"))
    _manifest(second)
    assert kept.exact()[COUNT] == 1
