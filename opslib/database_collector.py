"""A collector of questions to one database."""

from __future__ import annotations

from opslib.collector import Collector, Every
from opslib.postgres import Database


class DatabaseCollector(Collector):
    """Questions to one database, on a clock of their own.

    Args:
        database: Asked by this collector; several may share it.
        seconds: Between two refreshes.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self.refresh = Every(seconds, deadline=60)
        self._database = database

    async def probe(self) -> None:
        """Does it answer?"""
        await self._database.ping()

    async def start(self) -> None:
        """Make it ready to be asked."""
        await self._database.open()

    async def stop(self) -> None:
        """Let go of it."""
        await self._database.close()
