"""Soaking: one model run for half an hour, since a ranking at minute 1 is not the ranking at minute 30."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from edgecnn.devices.device import Device
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError
from edgecnn.measurement import Measurement, quantile
from edgecnn.progress import Progress, silent

SHORTEST_S = 2.0
"""A soak of less is none."""

BLOCK_S = 1.0
"""Length of a block: the sensors are read between blocks, and nothing that heats a device is faster."""

BLOCK_SAMPLES = 100
"""Samples that are kept of a block. Of 0.05 ms each, half an hour has 36 million, more than a small board's
memory holds."""

MOST_POINTS = 180
"""Of the curve: ten seconds each in half an hour."""

PERIOD_S = 60.0
"""The first and the last minute are compared, or halves where there are no two."""

SETTLED_WITHIN = 0.03
"""Of the last minute's median. Points on a quiet device lie within 0.01 of each other, and the smallest step
of a throttled clock is about 0.05."""


@dataclass(frozen=True)
class Point:
    """A stretch of the soak; None for what the device did not tell in it."""

    at_s: float
    """Its middle, in seconds after the first timed run."""
    p10_ms: float
    """The latency that one run in ten stays below."""
    p50_ms: float
    """The median latency."""
    p90_ms: float
    """The latency that nine runs in ten stay below."""
    temperature_c: float | None
    """Mean of the readings."""
    frequency_mhz: float | None
    """The lowest reading."""
    throttled: bool | None
    """Whether heat or power slowed the processor."""
    power_w: float | None
    """Mean of the readings."""


@dataclass(frozen=True)
class Soak:
    """One model run without a pause, and what became of its latency."""

    measurement: Measurement
    """Every kept sample and every reading."""

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The curve: stretches of equal length, without those in which no run ended."""
        times, samples = self._times_s, self.measurement.samples_ms
        length_s = self.seconds / MOST_POINTS
        edges = [bisect_left(times, place * length_s) for place in range(MOST_POINTS)] + [len(times)]
        return tuple(
            self._point(place * length_s, (place + 1) * length_s, samples[edges[place] : edges[place + 1]])
            for place in range(MOST_POINTS)
            if edges[place] < edges[place + 1]
        )

    @property
    def seconds(self) -> float:
        """From the first timed run's begin to the last one's end."""
        m = self.measurement
        if m.block_at_s and m.block_took_s:
            return m.block_at_s[-1] + m.block_took_s[-1]
        return sum(m.samples_ms) / 1e3

    @property
    def period_s(self) -> float:
        """How long the stretches are that `first_ms` and `last_ms` are of."""
        return min(PERIOD_S, self.seconds / 2)

    @property
    def first_ms(self) -> float:
        """The median of the first minute."""
        upto = max(1, bisect_left(self._times_s, self.period_s))
        return statistics.median(self.measurement.samples_ms[:upto])

    @property
    def last_ms(self) -> float:
        """The median of the last minute."""
        start = min(len(self._times_s) - 1, bisect_left(self._times_s, self.seconds - self.period_s))
        return statistics.median(self.measurement.samples_ms[start:])

    @property
    def change(self) -> float:
        """The last minute's median over the first one's, minus 1: positive where it slowed down."""
        return self.last_ms / self.first_ms - 1

    @property
    def settled_s(self) -> float | None:
        """From when on every point was within 3 % of the last minute's median; None where that lasted less
        than a minute."""
        last_ms = self.last_ms
        settled = None
        for point in reversed(self.points):
            if abs(point.p50_ms / last_ms - 1) > SETTLED_WITHIN:
                break
            settled = point
        if settled is None or settled.at_s > self.seconds - self.period_s:
            return None
        return 0.0 if settled is self.points[0] else settled.at_s

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature that was read."""
        return max((point.temperature_c for point in self.points if point.temperature_c), default=None)

    @property
    def sentence(self) -> str:
        """What became of the latency, without a full stop."""
        of = "minute" if self.period_s == PERIOD_S else "half"
        settled = self.settled_s
        if self.period_s < PERIOD_S:
            end = "too short to tell whether it settles"
        elif settled is None:
            end = "it did not settle"
        elif settled == 0:
            end = "settled from the start"
        else:
            end = f"settled after {duration(settled)}"
        return (
            f"{self.first_ms:.3g} ms in the first {of}, {self.last_ms:.3g} ms in the last {of} "
            f"({self.change:+.0%}); {end}"
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict: the labels, the figures, and the curve in place of samples and readings."""
        labels = asdict(replace(self.measurement, telemetry=None))
        for name in ("samples_ms", "warmup_ms", "block_runs", "block_at_s", "block_took_s", "telemetry"):
            del labels[name]
        return {
            **labels,
            "p50_ms": self.measurement.p50_ms,
            "steady": self.measurement.steady,
            "reason": self.measurement.reason,
            "seconds": self.seconds,
            "period_s": self.period_s,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "change": self.change,
            "settled_s": self.settled_s,
            "hottest_c": self.hottest_c,
            "points": [asdict(point) for point in self.points],
        }

    def to_svg(self) -> str:
        """Latency and temperature over time, as a picture that stands alone."""
        from edgecnn.report.soak_chart import soak_chart

        return soak_chart(self)

    @cached_property
    def _times_s(self) -> list[float]:
        """The middle of each sample's share of its block; without blocks, as if run followed run."""
        m = self.measurement
        times: list[float] = []
        if m.block_at_s and m.block_took_s:
            for began, took, count in zip(m.block_at_s, m.block_took_s, m.block_runs, strict=True):
                times += [began + took * (place + 0.5) / count for place in range(count)]
            return times
        now = 0.0
        for sample in m.samples_ms:
            times.append(now + sample / 2e3)
            now += sample / 1e3
        return times

    def _point(self, begin_s: float, end_s: float, samples: tuple[float, ...]) -> Point:
        readings = self.measurement.telemetry or ()
        first = bisect_left(readings, begin_s, key=lambda each: each.at_s)
        last = bisect_left(readings, end_s, key=lambda each: each.at_s)
        read = readings[first:last]
        temperatures = [each.temperature_c for each in read if each.temperature_c is not None]
        clocks = [each.frequency_mhz for each in read if each.frequency_mhz is not None]
        # A reading tells of the time since the one before it, so the next one tells of the end of this.
        throttled = [each.throttled for each in readings[first : last + 1] if each.throttled is not None]
        powers = [each.power_w for each in read if each.power_w is not None]
        return Point(
            at_s=(begin_s + end_s) / 2,
            p10_ms=quantile(samples, 0.1),
            p50_ms=statistics.median(samples),
            p90_ms=quantile(samples, 0.9),
            temperature_c=statistics.fmean(temperatures) if temperatures else None,
            frequency_mhz=min(clocks) if clocks else None,
            throttled=any(throttled) if throttled else None,
            power_w=statistics.fmean(powers) if powers else None,
        )


def soak(device: Device, job: Job, seconds: float, *, progress: Progress = silent) -> Soak:
    """Run a model without a pause in one process, with the device's sensors read in between.

    Args:
        device: where.
        job: its inputs, minimum times and blocks play no part.
        seconds: how long, half an hour for a board in a case.
        progress: told how far it is.

    Raises:
        ConfigError: too short a time; and as ``Device.measure`` does.
        MissingDependency, DeviceError: as ``Device.measure`` does.
    """
    if not math.isfinite(seconds) or seconds < SHORTEST_S:
        raise ConfigError(f"{seconds:g} s are too short for a soak", hint="minutes show what heat does: 30m")
    long_job = replace(
        job,
        inputs=None,
        outputs=None,
        min_time_s=seconds,
        max_time_s=seconds,
        min_runs=1,
        # Short: the first minute is to be seen as it is.
        warmup_max_s=min(job.min_time_s, seconds) if job.warmup_max_s is None else job.warmup_max_s,
        block_s=BLOCK_S,
        block_samples=BLOCK_SAMPLES,
    )
    return Soak(device.measure(long_job, progress=progress))


def duration(seconds: float) -> str:
    """In words, such as ``6 min`` or ``40 s``."""
    return f"{seconds:.0f} s" if seconds < 2 * 60 else f"{seconds / 60:.0f} min"
