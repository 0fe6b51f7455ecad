"""What there is of backups, looked up where it lies: in the folder behind the S3 server, by nothing of ours."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

from demo.compare import Bounds
from demo.truth import Series, series

SLACK_SECONDS = 2.0
"""A store tells times in whole seconds."""


class Kept:
    """The backups, as files.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _dumps(self) -> list[Path]:
        """Each with a manifest that names its digest, and readable to its end; the oldest first."""
        found = sorted(self._folder.glob("*.sql.gz"), key=lambda path: path.stat().st_mtime)
        return [path for path in found if _whole(path)]

    def exact(self) -> dict[Series, float]:
        """Every series of theirs that is not 0, once the newest was verified and one was restored."""
        dumps = self._dumps()
        if not dumps:
            return {}
        expected = {
            series("bitloot_backups", manifest="yes"): float(len(dumps)),
            series("bitloot_backup_newest_bytes"): float(dumps[-1].stat().st_size),
            series("bitloot_backup_newest_proven"): 1.0,
            series("bitloot_backup_proven", check="verify"): 1.0,
            series("bitloot_backup_proven", check="drill"): 1.0,
        }
        if len(dumps) > 1:
            expected[series("bitloot_backup_size_ratio")] = dumps[-1].stat().st_size / dumps[-2].stat().st_size
        return expected

    def times(self) -> dict[Series, Bounds]:
        """When the newest was written."""
        return {
            series("bitloot_backup_newest_timestamp_seconds"): (
                path.stat().st_mtime - SLACK_SECONDS,
                path.stat().st_mtime + SLACK_SECONDS,
            )
            for path in self._dumps()[-1:]
        }


def _whole(path: Path) -> bool:
    body = path.read_bytes()
    manifest = path.with_name(f"{path.name}.json")
    return (
        manifest.exists()
        and json.loads(manifest.read_text("utf-8"))["sha256"] == hashlib.sha256(body).hexdigest()
        and b"-- PostgreSQL database dump complete" in gzip.decompress(body)
    )
