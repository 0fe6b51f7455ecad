"""Fetch the provider's products anew, because a person asked for it; what the application answered is the result.

Source: the application's admin API, `POST /admin/catalog/sync`. It is asked once: it may have begun whatever became of
its answer, and asking again would begin again.
"""

from __future__ import annotations

from pydantic import BaseModel, JsonValue

from opslib.areas.app_admin import AppAdmin
from opslib.run import Run
from opslib.spec import Job, NoParams

JOB = Job(
    name="product-sync",
    title="Product catalog, on demand",
    schedule=None,
    timeout=120,
    needs=("APP_BASE_URL",),
)


class Result(BaseModel):
    """What the application said.

    Attributes:
        answer: Its own words, at most twenty plain values of them.
    """

    answer: dict[str, JsonValue]


MOST = 20


def run(run: Run, params: NoParams) -> Result:
    """Ask for it.

    Raises:
        ConfigError: The admin API's settings are missing.
        SourceError: The application is away, or refused.
    """
    del params
    answer = AppAdmin(run.settings).sync_catalog()
    plain = {name: value for name, value in answer.items() if isinstance(value, bool | int | float | str)}
    result = Result(answer=dict(list(plain.items())[:MOST]))
    run.log.info("catalog_synced", answer=result.answer)
    return result
