"""What the machine does beside the model: its state in a series, and what other processes take of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import host

# Often enough for ten readings in a short run, rarely enough to take a fiftieth of its time at most.
PERIOD_S = 0.5
LARGEST_SHARE = 0.02

# Readings of the power at rest, where there is a sensor, and the time for the interpreter's start to be over.
REST_READINGS = 4
REST_S = 0.3

# /proc/stat counts in ticks of usually 10 ms: of less time than this they say little.
SHORTEST_S = 0.3


class Telemetry:
    """Readings over one job, none of them inside a timed block.

    A reading is taken while ``work`` goes on, untimed inferences: a processor that waits for its sensors has
    another clock and power than one that computes.
    """

    def __init__(self) -> None:
        self._sensors = host.Sensors()
        self._readings: list[dict[str, Any]] = []
        self._due = 0.0

    def read(self, work: Callable[[], object] | None = None, *, battery: bool = False) -> dict[str, Any]:
        """Take a reading now."""
        began = time.perf_counter()
        reading = self._sensors.read(work, battery=battery)
        ended = time.perf_counter()
        self._readings.append({**reading, "at": (began + ended) / 2, "busy": work is not None})
        self._due = ended + max(PERIOD_S, (ended - began) / LARGEST_SHARE)
        return reading

    def read_if_due(self, work: Callable[[], object]) -> None:
        """Take a reading where the last is some time ago."""
        if time.perf_counter() >= self._due:
            self.read(work)

    def read_at_rest(self) -> None:
        """Take the first reading, and some more of a power sensor."""
        if self.read(battery=True)["power_w"] is not None:
            for _ in range(REST_READINGS - 1):
                time.sleep(REST_S)
                self.read()

    def result(self, began: float) -> dict[str, Any]:
        """Fields of the result.

        Args:
            began: when the timed part began, by ``time.perf_counter``.
        """
        causes = host.throttling(self._readings)
        known = [each for each in causes if each is not None]
        by = sorted({cause for each in known for cause in each})
        told = ("busy", "temperature_c", "frequency_mhz", "power_w", "battery_percent", "charging")
        series = []
        for place, reading in enumerate(self._readings):
            cause = causes[place]
            throttled = None if cause is None else bool(cause)
            kept = {name: reading[name] for name in told if reading[name] is not None}
            series.append({"at_s": reading["at"] - began, "throttled": throttled, **kept})
        return {
            "telemetry": series,
            "throttled": bool(by) if known else None,
            "throttled_by": by if known else None,
        }


class OtherWork:
    """CPU time that other processes took of the cores this one may use, over the timed blocks."""

    def __init__(self) -> None:
        self._cores = host.usable_cores()
        self._all_s = self._own_s = self._took_s = 0.0
        self._known = True

    def begin(self) -> None:
        """A block begins."""
        self._began = time.perf_counter(), host.cpu_seconds(self._cores), time.process_time()

    def end(self) -> None:
        """It has ended."""
        wall, busy, own = self._began
        now = host.cpu_seconds(self._cores)
        if busy is None or now is None:
            self._known = False
            return
        self._all_s += now - busy
        self._own_s += time.process_time() - own
        self._took_s += time.perf_counter() - wall

    @property
    def share(self) -> float | None:
        """Of the cores' time, 0 to 1; None where it is not told, or the blocks were too short to tell."""
        # A sandbox may show counters that stand still.
        if not self._known or self._took_s < SHORTEST_S or not self._all_s:
            return None
        return min(1.0, max(0.0, self._all_s - self._own_s) / (self._took_s * len(self._cores)))
