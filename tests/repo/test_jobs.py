"""Every job of the catalog can be run with what it says it takes."""

from __future__ import annotations

import sys
import typing

import pytest

from opsctl import catalog
from opsctl.parameters import fields
from opslib.run import Run
from opslib.settings import FIELDS
from opslib.spec import Job

JOBS = {name: catalog.load(target) for name, target in catalog.JOBS.items()}


@pytest.mark.parametrize("name", JOBS)
def test_takes_the_parameters_it_declares(name: str) -> None:
    """What `--params` is checked against is what `run` is written for, and a scheduled run needs none."""
    job: Job = JOBS[name]
    hints = typing.get_type_hints(sys.modules[catalog.JOBS[name].partition(":")[0]].run)
    assert (hints["run"], hints["params"]) == (Run, job.params)
    if job.schedule is not None:
        job.params()
    assert job.name == name


@pytest.mark.parametrize("name", JOBS)
def test_explains_its_parameters(name: str) -> None:
    """`opsctl jobs show` says what each means."""
    for field in fields(JOBS[name].params):
        assert field["meaning"].endswith("."), f'{field["name"]}: Field(description="A sentence.")'


@pytest.mark.parametrize("name", JOBS)
def test_needs_settings_that_exist(name: str) -> None:
    """A misspelt need would keep a job from ever being scheduled."""
    assert set(JOBS[name].needs) <= {field.name for field in FIELDS}
