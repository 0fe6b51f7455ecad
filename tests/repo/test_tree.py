"""What may not stand in a tracked file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:root|home/\w+|work)/[\w.]"),
    "a package registry's address": re.compile(r"https?://[\w.]*(?:pypi|pythonhosted|npmjs)\b|--(?:extra-)?index-url"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def tracked() -> list[Path]:
    """Every tracked text file."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what: str) -> None:
    """Nothing that ties the project to a machine or a registry, and no key."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__)
        for match in FORBIDDEN[what].finditer(path.read_text("utf-8", errors="replace"))
    ]
    assert found == []


def test_links_in_documents_lead_somewhere() -> None:
    """A relative link names a file that is there."""
    broken = [
        f"{path.relative_to(ROOT)} -> {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text("utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []


def test_locks_hold_hashes_and_no_addresses() -> None:
    """Every pinned package has a hash; nothing says where it came from."""
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        text = lock.read_text("utf-8")
        pins = re.findall(r"^[\w.-]+==", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)), lock.name
        assert "://" not in text, lock.name
