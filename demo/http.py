"""An aiohttp application on a free loopback port, that can be restarted on the same port."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from aiohttp import web

from demo.processes import free_port


class HttpServer(ABC):
    """Serves one aiohttp application per start, on a port of its own that stays the same across starts.

    Subclasses say what to serve by `application`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def application(self) -> web.Application:
        """A new application with its routes."""

    async def start(self) -> None:
        """Listen."""
        # Nobody who hangs may hold up the end.
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening; connections are refused from here on."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
