"""Which build of ours is running."""

from __future__ import annotations

import subprocess
from importlib.metadata import version as installed
from pathlib import Path


def version() -> str:
    """The installed version."""
    return installed("bitloot-ops")


def commit() -> str:
    """The commit of the checkout this runs from; `unknown` when it runs from a package."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return "unknown"
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - whichever git is installed
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
