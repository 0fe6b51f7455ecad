"""What a report asks: two databases, Redis, the bucket, Prometheus. Each may be away; none makes the report fail.

A source that could not be reached once is not asked again: a report about an outage must not take as long as one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from pydantic import SecretStr

from opslib.areas import records
from opslib.areas.queries import NAMED
from opslib.areas.records import Connection, Row
from opslib.errors import ConfigError, OpsError, SourceError
from opslib.postgres import describe, explain
from opslib.redact import redact
from opslib.report.model import Gap, Section, visible
from opslib.report.prometheus import Prometheus
from opslib.settings import Settings
from opslib.storage import Storage

T = TypeVar("T")

SETTLE = timedelta(minutes=1)
"""How long after its creation a row's outcome may still be open (`ops_view.webhook_events.settled`)."""
STORE_SECONDS = 10.0
"""Without a byte from the store, after which it is away: a report needs listings only."""


@dataclass(frozen=True, slots=True)
class Period:
    """Whole UTC days.

    Attributes:
        first: Its first day.
        last: Its last one.
    """

    first: date
    last: date

    @classmethod
    def day(cls, of: date) -> Self:
        """One day."""
        return cls(of, of)

    @property
    def since(self) -> datetime:
        """Its first moment."""
        return datetime.combine(self.first, time(), UTC)

    @property
    def until(self) -> datetime:
        """The moment it is over."""
        return datetime.combine(self.last, time(), UTC) + timedelta(days=1)


class Database:
    """One database, connected to when it is first asked, and only read.

    Args:
        dsn: Where; None: not set.
        setting: The setting that says so.
    """

    def __init__(self, dsn: str | None, setting: str) -> None:
        self._dsn = dsn
        self._setting = setting
        self._exits = contextlib.ExitStack()
        self._connection: Connection | None = None
        self._why = ""

    @contextlib.contextmanager
    def asking(self) -> Iterator[Connection]:
        """Its connection.

        Raises:
            ConfigError: It is not set.
            SourceError: It is away, or refuses.
        """
        if self._dsn is None:
            raise ConfigError(f"{self._setting} is not set")
        if self._why:
            raise SourceError(self._why)
        try:
            if self._connection is None:
                self._connection = self._exits.enter_context(records.connect(self._dsn))
            yield self._connection
        except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege) as exc:
            raise SourceError(f"Postgres: {describe(exc)}") from exc
        except psycopg.OperationalError as exc:
            self._why = f"Postgres: {describe(exc)}"
            raise SourceError(self._why) from exc
        except psycopg.Error as exc:
            raise SourceError(f"Postgres: {explain(exc)}") from exc
        except SourceError as exc:
            if self._connection is None:
                self._why = str(exc)
            raise

    def rows(self, query: str, /, **given: Any) -> list[Row]:
        """What a named query answers.

        Raises:
            ConfigError: See `asking`.
            SourceError: See `asking`.
        """
        with self.asking() as connection:
            return records.rows(connection, query, **given)

    def close(self) -> None:
        """Let go."""
        with contextlib.suppress(OpsError, psycopg.Error):
            self._exits.close()


@dataclass(slots=True)
class Sources:
    """Everything a report asks.

    Attributes:
        settings: Where all that is.
        generated: When the report is made.
        app: The application's views.
        ops: Our own tables.
        prometheus: None: not set.
    """

    settings: Settings
    generated: datetime
    app: Database = field(init=False)
    ops: Database = field(init=False)
    prometheus: Prometheus | None = field(init=False)
    _once: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app = Database(_revealed(self.settings.database_url), "DATABASE_URL")
        self.ops = Database(_revealed(self.settings.ops_dsn), "OPS_DATABASE_URL or DATABASE_URL")
        url = self.settings.prometheus_url
        self.prometheus = Prometheus(url.get_secret_value()) if url else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.app.close()
        self.ops.close()

    def rows(self, query: str, /, **given: Any) -> list[Row]:
        """What a named query answers, of whichever database it is for.

        Raises:
            ConfigError: That database is not set.
            SourceError: It is away, or refuses.
        """
        return (self.app if NAMED[query].database == "app" else self.ops).rows(query, **given)

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """What `ask` answered the first time, its failure included.

        Raises:
            OpsError: What it raised.
        """
        if name not in self._once:
            try:
                self._once[name] = ask()
            except OpsError as exc:
                self._once[name] = exc
        found: T | OpsError = self._once[name]
        if isinstance(found, OpsError):
            raise found
        return found

    def storage(self) -> Storage:
        """The bucket.

        Raises:
            ConfigError: It is not set.
        """
        return Storage(Storage.of(self.settings).place, timeout=STORE_SECONDS, attempts=2)

    def now(self) -> datetime:
        """The time on the clock that stamped the rows.

        Raises:
            ConfigError: That database is not set.
            SourceError: It is away.
        """
        moment: datetime = self.once("clock", lambda: self.rows("clock")[0]["now"])
        return moment


@contextlib.contextmanager
def reading(section: Section, what: str) -> Iterator[None]:
    """What cannot be read in the block becomes a gap of the section; the rest of the section goes on behind it."""
    try:
        yield
    except OpsError as exc:
        section.gaps.append(Gap(what, visible(str(redact(str(exc).splitlines()[0])))))


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def total(facts: Mapping[str, Any], *keys: str) -> Any:
    """The sum of some keys; of all if none is named."""
    return sum(value for key, value in facts.items() if not keys or key in keys)
