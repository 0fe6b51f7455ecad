"""Every period and limit of the engine in one place, so that a test can shorten time itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, all of them.

    Attributes:
        beat: How often a process says that it lives.
        worker_silent: A process silent for this long is dead: its attempts are others' to take over. An attempt cut off
            from its process ends itself before that.
        run_beat: How often an attempt's own process says that it lives.
        run_silent: An attempt silent for this long is FAILED, even with nobody there to say so.
        watch: How often attempts are asked about: still ours, cancelled? Progress is written as often.
        reap: How often the dead are looked for.
        settle: Contact with Postgres must have lasted this long before anybody else is called silent: after an outage
            everybody was.
        kill_grace: From SIGTERM to SIGKILL.
        drain: How long a process told to leave waits for what it runs.
        poll: Longest wait for work without a notification.
        retry: Wait before Postgres is asked again.
        sweep: How often slots are looked for without a tick.
        misfire: How late a tick may be, and a slot of a job that catches nothing up.
        prune: How often old runs are forgotten.
    """

    beat: float = 10
    worker_silent: float = 45
    run_beat: float = 30
    run_silent: float = 300
    watch: float = 1
    reap: float = 2
    settle: float = 12
    kill_grace: float = 10
    drain: float = 30
    poll: float = 5
    retry: float = 0.5
    sweep: float = 15
    misfire: float = 60
    prune: float = 3600

    @property
    def silent_after(self) -> timedelta:
        """`run_silent` as the database takes it."""
        return timedelta(seconds=self.run_silent)
