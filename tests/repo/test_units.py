"""The systemd units: locked down as far as they say, and nothing in them that systemd would only warn about."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "ansible/roles/bitloot_ops/files").glob("*.service"))
MOST = 1.5
"""Of 10, systemd's own measure of exposure."""


@pytest.fixture
def analyze() -> str:
    """The program systemd-analyze."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("not run: systemd-analyze is missing (Debian: systemd)")
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_exposure(analyze: str, unit: Path) -> None:
    """At most 1.5, and docs/benchmarks.md says how much."""
    # A template's own file has no instance; what an @ makes of the name changes nothing of the measure.
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=True
    )
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score, done.stdout
    assert float(score[1]) <= MOST, done.stdout
    assert f"`{unit.name}` {score[1]}" in (ROOT / "docs/benchmarks.md").read_text("utf-8")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_directive(analyze: str, unit: Path, tmp_path: Path) -> None:
    """A misspelt directive is a warning in a log and no protection."""
    assert said(analyze, unit.read_text("utf-8"), unit, tmp_path) == []
    (found,) = said(analyze, unit.read_text("utf-8").replace("ProtectClock", "ProtectKlock"), unit, tmp_path)
    assert "ProtectKlock" in found


def said(analyze: str, text: str, unit: Path, folder: Path) -> list[str]:
    """What systemd says to a unit, but for programs that are not installed here."""
    path = folder / unit.name.replace("@.", "@main.")
    path.write_text(text, "utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if unit.name.split("@")[0].split(".")[0] in line and "is not executable" not in line]


def test_the_jobs_unit_leaves_its_children_to_it() -> None:
    """Decision 0005: a SIGTERM to every process would cut off the jobs it wants to wait for."""
    text = next(path for path in UNITS if path.name == "bitloot-jobs.service").read_text("utf-8")
    assert "\nKillMode=mixed\n" in text
