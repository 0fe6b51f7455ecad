"""The catalog is whole, and every module it names keeps the house rules."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from opsctl import catalog, generate
from opslib.collector import SELF_METRICS
from opslib.server import PAGE_METRICS
from opslib.settings import FIELDS
from opslib.spec import Histogram

ROOT = Path(__file__).parents[2]
SUBJECTS = [catalog.subject(name) for name in catalog.SUBJECTS]


def test_a_metric_family_has_exactly_one_owner() -> None:
    """Two owners would put a family on the page twice, or make one number mean two things."""
    owners = Counter(m.name for subject in SUBJECTS for m in subject.metrics)
    owners.update(m.name for m in (*SELF_METRICS, *PAGE_METRICS))
    assert [name for name, count in owners.items() if count > 1] == []


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_names_are_prometheus_names(subject: catalog.Subject) -> None:
    """Our prefix, a help sentence, base units, ascending buckets."""
    for metric in subject.metrics:
        assert metric.name.startswith(("bitloot_", "ops_")), metric.name
        assert metric.help.endswith("."), f"{metric.name}: its help is a sentence"
        assert not metric.name.endswith(("_ms", "_milliseconds", "_minutes", "_count", "_sum", "_bucket")), metric.name
        if isinstance(metric, Histogram):
            assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_a_subject_names_settings_that_exist(subject: catalog.Subject) -> None:
    """What it needs can be set, and its collectors can be loaded."""
    assert {*subject.needs, *subject.needs_one} <= {field.name for field in FIELDS}
    assert callable(catalog.load(subject.collectors))
    assert subject.name in catalog.SUBJECTS


def test_every_exporter_module_with_a_subject_is_in_the_catalog() -> None:
    """A module nobody lists is a module nobody runs."""
    modules = {path.stem for path in (ROOT / "exporters").glob("*.py") if "\nSUBJECT = " in path.read_text("utf-8")}
    assert modules == {target.split(":")[0].removeprefix("exporters.") for target in catalog.SUBJECTS.values()}


def test_help_loads_no_command_and_no_library_but_click() -> None:
    """`opsctl --help` lists from the catalog; commands load when typed."""
    script = (
        "import sys; from click.testing import CliRunner; from opsctl.cli import cli;"
        "result = CliRunner().invoke(cli, ['--help']); assert result.exit_code == 0, result.output;"
        "print(*sorted({'psycopg', 'redis', 'pydantic', 'aiohttp', 'httpx', 'rich', 'structlog', 'sentry_sdk'}"
        " & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


@pytest.mark.parametrize("name", catalog.COMMANDS)
def test_every_command_can_be_loaded_and_explains_itself(name: str) -> None:
    """Its line in the catalog and its own help both exist."""
    command = catalog.load(catalog.COMMANDS[name].target)
    assert command.name == name
    assert command.help


def test_generated_files_are_current() -> None:
    """`make generate` would change nothing."""
    assert generate.main(["--check"]) == 0
