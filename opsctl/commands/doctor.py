"""`opsctl doctor`: connect to everything that is configured, and say what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urljoin

import click

from opsctl.kinds import reads
from opsctl.output import Column, Output, printed_json
from opslib import log, settings
from opslib.errors import ConfigError, ContractError, MigrationError, OpsError, SourceError
from opslib.redact import redact
from opslib.settings import Settings

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one check.

    Attributes:
        part: What was looked at.
        state: `ok`, `failed` or `not set`.
        says: What was found; of a failure also what to do.
    """

    part: str
    state: str
    says: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to connect to.

    Attributes:
        part: Its name.
        needs: Settings without which there is nothing to check.
        look: Looks, and returns what it found; raises an `OpsError` that says what to do.
    """

    part: str
    needs: tuple[str, ...]
    look: Callable[[Settings], str]

    def run(self, loaded: Settings) -> Verdict:
        """Look."""
        missing = [name for name in self.needs if not loaded.has(name)]
        if missing:
            return Verdict(self.part, "not set", f"{' and '.join(missing)}")
        try:
            return Verdict(self.part, "ok", redact(self.look(loaded)))
        except OpsError as exc:
            return Verdict(self.part, "failed", redact(str(exc)))


def _database(loaded: Settings) -> str:
    from opslib.areas import records  # noqa: PLC0415 - `--help` and shell completion need no database
    from opslib.contract import canonical  # noqa: PLC0415 - as above

    with records.connect(loaded.reveal("DATABASE_URL")) as connection:
        (me,) = connection.execute(
            "SELECT current_user AS login, current_database() AS database, current_setting('server_version') AS version"
        ).fetchall()
        problems = canonical.problems(records.rows(connection, "contract_columns"))
        if len(problems) >= len(canonical.VIEWS):
            raise ContractError("the views are not there: run `opsctl contract apply` as the owner of the database")
        if problems:
            raise ContractError(f"{'; '.join(problems)}: run `opsctl contract apply`, which says why")
        missing = [
            view
            for view in canonical.VIEWS
            if not connection.execute(
                "SELECT has_table_privilege(%s, 'SELECT') AS reads", (f"{canonical.SCHEMA}.{view}",)
            ).fetchall()[0]["reads"]
        ]
    if missing:
        raise SourceError(f"{me['login']} may not read {', '.join(missing)}: make it a member of ops_staff")
    return f"PostgreSQL {me['version'].split()[0]}, database {me['database']} as {me['login']}; the contract is there"


def _schema(loaded: Settings) -> str:
    from psycopg.errors import InsufficientPrivilege  # noqa: PLC0415 - as above

    from opslib.contract import migrate  # noqa: PLC0415 - as above
    from opslib.contract.migrate import State  # noqa: PLC0415 - as above

    try:
        steps = migrate.status(loaded.require_ops())
    except SourceError as exc:
        if not isinstance(exc.__cause__, InsufficientPrivilege):
            raise
        return "there; its version is for the owner to see: `opsctl migrate status`"
    odd = [step for step in steps if step.state in (State.EDITED, State.UNKNOWN)]
    if odd:
        raise MigrationError(f"{odd[0].version:04d} is {odd[0].state}: `opsctl migrate status` says more")
    pending = [step for step in steps if step.state is State.PENDING]
    if pending:
        raise MigrationError(f"{len(pending)} migrations pending: run `opsctl migrate up`")
    return f"at version {max(step.version for step in steps):04d}"


def _operator(loaded: Settings) -> str:
    from psycopg.errors import InsufficientPrivilege  # noqa: PLC0415 - as above

    from opslib.action import Role  # noqa: PLC0415 - as above
    from opslib.areas.queries import NAMED  # noqa: PLC0415 - as above
    from opslib.guard import MAY  # noqa: PLC0415 - as above
    from opslib.session import session  # noqa: PLC0415 - as above

    try:
        with session(loaded.require_ops(), "doctor") as connection:
            (me,) = connection.execute(NAMED["whoami"].sql).fetchall()
    except SourceError as exc:
        if not isinstance(exc.__cause__, InsufficientPrivilege):
            raise
        return "this login is no operator's: what changes anything refuses it"
    acts = me["role"] in MAY[Role.STAFF]
    return f"{me['login']} is {me['role']}" + ("" if acts else ", no operator: what changes anything refuses it")


def _flags(loaded: Settings) -> str:
    from opslib.areas import flag_sync, flags  # noqa: PLC0415 - as above

    return f"{len(flags.load(flag_sync.path(loaded)).flags)} flags"


def _redis(loaded: Settings) -> str:
    return asyncio.run(_queues(loaded))


async def _queues(loaded: Settings) -> str:
    from opsctl.queue_session import opened  # noqa: PLC0415 - as above
    from opslib.areas.queue_discovery import attached  # noqa: PLC0415 - as above
    from opslib.areas.queues import ask  # noqa: PLC0415 - as above

    async with opened(loaded) as here:
        workers = await attached(here.client, here.queues.values())
        (memory,) = await ask(here.client, [(b"", ("INFO", "memory"))])
    policy = _info(memory, b"maxmemory_policy")
    if policy not in ("", "noeviction"):
        raise SourceError(f"maxmemory-policy is {policy}: Redis may throw jobs away; set `maxmemory-policy noeviction`")
    idle = [queue.name for queue, count in (workers or {}).items() if not count]
    return f"{len(here.queues)} queues" + (f"; without a worker: {', '.join(sorted(idle))}" if idle else "")


def _info(answer: Any, field: bytes) -> str:
    """A field of INFO; empty where it is refused or not told."""
    lines = answer.splitlines() if isinstance(answer, bytes) else []
    return next((line.partition(b":")[2].decode() for line in lines if line.startswith(field + b":")), "")


def _bucket(loaded: Settings) -> str:
    from opslib.storage import Storage  # noqa: PLC0415 - as above

    storage = Storage.of(loaded)
    next(iter(storage.pages("backups/")), ())
    return f"bucket {storage.bucket} can be listed"


def _provider(name: str) -> Callable[[Settings], str]:
    def look(loaded: Settings) -> str:
        from opslib.areas.balances import PROVIDERS  # noqa: PLC0415 - as above

        (kind,) = (each for each in PROVIDERS if each.name == name)

        async def ask() -> dict[str, float]:
            provider = kind(loaded)
            try:
                return await provider.balances()
            finally:
                await provider.client.close()

        amounts = asyncio.run(ask())
        return ", ".join(f"{amount:g} {currency}" for currency, amount in list(amounts.items())[:5]) or "no balance"

    return look


def _page(setting: str, path: str, says: str) -> Callable[[Settings], str]:
    def look(loaded: Settings) -> str:
        import httpx  # noqa: PLC0415 - as above

        try:
            answer = httpx.get(urljoin(loaded.reveal(setting).rstrip("/") + "/", path), timeout=SECONDS)
        except httpx.HTTPError as exc:
            raise SourceError(f"{type(exc).__name__}: is it up, and {setting} right?") from exc
        if not answer.is_success:
            raise SourceError(f"answered {answer.status_code}: see its log, and {setting}")
        return says

    return look


def _own_metrics(loaded: Settings) -> str:
    import httpx  # noqa: PLC0415 - as above

    from exporters.app import parse  # noqa: PLC0415 - as above

    try:
        text = httpx.get(loaded.reveal("APP_METRICS_URL"), timeout=SECONDS).text
    except httpx.HTTPError as exc:
        raise SourceError(f"{type(exc).__name__}: is it up, and APP_METRICS_URL right?") from exc
    parse(text)
    return "its counters can be read"


CHECKS = (
    Check("application's database", ("DATABASE_URL",), _database),
    Check("schema ops", (), _schema),
    Check("operator", (), _operator),
    Check("queues", ("REDIS_URL",), _redis),
    Check("object store", ("R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID"), _bucket),
    Check("flags file", ("OPS_FLAGS_FILE",), _flags),
    Check("nowpayments", ("NOWPAYMENTS_API_KEY",), _provider("nowpayments")),
    Check("kinguin", ("KINGUIN_API_KEY",), _provider("kinguin")),
    # Its own /healthz answers with its database gone; this page does not.
    Check("application", ("APP_BASE_URL",), _page("APP_BASE_URL", "catalog/products", "answers from its database")),
    Check("application's metrics", ("APP_METRICS_URL",), _own_metrics),
    Check("prometheus", ("PROMETHEUS_URL",), _page("PROMETHEUS_URL", "-/ready", "ready")),
)


def examine(loaded: Settings) -> Iterator[Verdict]:
    """Every check, side by side, in order."""
    with ThreadPoolExecutor(len(CHECKS)) as threads:
        # Each in a context of its own, which knows that this command only reads.
        begun = [threads.submit(contextvars.copy_context().run, check.run, loaded) for check in CHECKS]
        for future in begun:
            yield future.result()


@click.command()
@printed_json
@reads
def doctor(output: Output) -> None:
    """Connect to everything the settings name; say what is wrong and what to do. Exit code 1 if anything is."""
    loaded = settings.load()
    log.configure(loaded.model_copy(update={"ops_log_level": "error"}))  # what is wrong is this command's to say
    if not loaded.has("DATABASE_URL") and not loaded.has("REDIS_URL"):
        raise ConfigError("neither DATABASE_URL nor REDIS_URL is set: `opsctl check-config` shows every setting")
    verdicts = list(examine(loaded))
    output.rows(
        [asdict(verdict) for verdict in verdicts], ("part", Column("state", state=True), Column("says", "Says"))
    )
    if any(verdict.state == "failed" for verdict in verdicts):
        sys.exit(1)
