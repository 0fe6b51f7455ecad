"""Tells stories at random, from a seed, until told to stop; then waits until all of them have ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from demo.queues import Queues
from demo.stories import WEIGHTS, Stories
from demo.truth import Truth

Story = Callable[[Stories], Awaitable[None]]


class Traffic:
    """The driver.

    Args:
        stories: What it may tell.
        truth: Is told when a story breaks, which is a fault of the demo.
        seed: Makes the sequence of stories repeatable; their interleaving is not.
        per_second: Stories begun each second.
    """

    def __init__(self, stories: Stories, truth: Truth, *, seed: int = 1, per_second: float = 12.0) -> None:
        self.told = 0
        self._stories = stories
        self._truth = truth
        self._rng = random.Random(seed)
        self._per_second = per_second
        self._running: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Stories are told for the length of the block; at its end all have come to theirs.

        When the block is broken off, so are they.
        """
        loop = asyncio.create_task(self._loop())
        try:
            yield
            await _cancelled(loop)
            await self.finish()
        finally:
            await _cancelled(loop, *self._running)

    async def tell_all(self, times: int = 1) -> None:
        """Every kind of story, this many times, and wait for their ends."""
        for _ in range(times):
            for story in WEIGHTS:
                self._begin(story)
                await asyncio.sleep(1 / self._per_second)
        await self.finish()

    async def finish(self) -> None:
        """Wait until every story has ended."""
        while self._running:
            await asyncio.wait(self._running)

    async def _loop(self) -> None:
        # Each kind once first, so that even a short run leaves nothing out.
        queue = list(WEIGHTS)
        self._rng.shuffle(queue)
        stories, weights = list(WEIGHTS), list(WEIGHTS.values())
        while True:
            self._begin(queue.pop() if queue else self._rng.choices(stories, weights)[0])
            await asyncio.sleep(self._rng.expovariate(self._per_second))

    def _begin(self, story: Story) -> None:
        async def tell() -> None:
            await story(self._stories)

        self.told += 1
        task = asyncio.create_task(tell())
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._truth.faults.append(f"a story broke: {exc!r}")


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def drained(queues: Queues, seconds: float) -> bool:
    """Wait until the workers have done all there is to do; False when they did not in time."""
    deadline = time.monotonic() + seconds
    while await queues.unfinished():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
