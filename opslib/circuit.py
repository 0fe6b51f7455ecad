"""When not to ask: a circuit per question, and the pause a provider asked for.

Pure arithmetic over a clock that is handed in, in seconds of `time.monotonic`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

THRESHOLD = 5
"""Consecutive failures that open the circuit: three could be one deploy on the other side."""
REST = 30.0
"""Seconds it stays open: half the refresh of a minute, so that no refresh is lost to it twice."""


@dataclass(slots=True)
class Circuit:
    """Opens after `THRESHOLD` consecutive failures; after `REST` seconds lets one probe through.

    Attributes:
        clock: Seconds, monotonic.
        failures: Consecutive ones so far.
    """

    clock: Callable[[], float]
    failures: int = 0
    _opened: float = 0.0
    _probing: bool = False

    def enter(self) -> float:
        """Ask to pass: 0 when one may, else the seconds to wait. Who passes calls `leave`."""
        if self.failures < THRESHOLD:
            return 0.0
        wait = self._opened + REST - self.clock()
        if wait > 0 or self._probing:
            return max(wait, 1.0)
        self._probing = True
        return 0.0

    def leave(self, *, succeeded: bool) -> None:
        """Tell how it went. One failed probe opens the circuit again."""
        self._probing = False
        self.failures = 0 if succeeded else self.failures + 1
        if self.failures >= THRESHOLD:
            self._opened = self.clock()
