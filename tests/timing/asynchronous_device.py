"""A false device that works ahead of the host, in virtual time: every number is exact, and nothing waits."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FalseMark:
    """A point in the queue, with the device's time at which it is reached."""

    seconds: float

    def elapsed_time(self, end: FalseMark, /) -> float:
        return (end.seconds - self.seconds) * 1000


class AsynchronousDevice:
    """Queues work: asking for it costs the host little, doing it costs the device more.

    `now` reads the host's clock without waiting; `synchronise` lets the host wait for the device.
    """

    def __init__(self) -> None:
        self.host_time = 100.0
        self.free_at = 0.0  # the device has done all its work
        self.synchronisations = 0

    def launch(self, device_seconds: float, *, host_seconds: float) -> None:
        """Ask for work."""
        self.host_time += host_seconds
        self.free_at = max(self.free_at, self.host_time) + device_seconds

    def synchronise(self) -> None:
        self.synchronisations += 1
        self.host_time = max(self.host_time, self.free_at)

    def now(self) -> float:
        return self.host_time

    def mark(self) -> FalseMark:
        return FalseMark(max(self.free_at, self.host_time))

    def seconds_between(self, first: FalseMark, second: FalseMark, /) -> float:
        return first.elapsed_time(second) / 1000

    def hold(self, seconds: float, /) -> None:
        self.launch(seconds, host_seconds=0.0)
