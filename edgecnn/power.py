"""Energy of an inference, from the log of a USB power meter or from the device's own sensor."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from edgecnn.errors import ConfigError
from edgecnn.measurement import Measurement
from edgecnn.power_log import Trace

MIN_READINGS = 5
"""Fewer within the run say little of its mean power; a meter takes one to a hundred a second."""

IDLE_S = 30.0
"""The stretch before the run whose mean power is called idle."""


@dataclass(frozen=True)
class Energy:
    """What one inference takes, while inferences run without a pause."""

    source: str
    """``meter`` or ``sensor``."""
    mean_w: float
    """Mean power of the device while the model ran."""
    idle_w: float | None
    """Its mean power before that; None where it was not recorded."""
    per_inference_mj: float
    """Energy of an inference in all, in millijoules: the mean power for as long as one takes, and the copy of
    its input."""
    above_idle_mj: float | None
    """The same of the power above idle; None where that is not known, or nothing was above it."""
    readings: int
    """Readings of the power while the model ran."""
    assumed: tuple[str, ...]
    """What was taken for granted, a sentence each, without full stops."""

    @property
    def sentence(self) -> str:
        """The figures, without a full stop."""
        above = "" if self.above_idle_mj is None else f", {self.above_idle_mj:.3g} mJ of it above idle"
        idle = "" if self.idle_w is None else f", {self.idle_w:.3g} W idle"
        return f"{self.per_inference_mj:.3g} mJ an inference{above} ({self.mean_w:.3g} W{idle})"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with every field."""
        return {**asdict(self), "assumed": list(self.assumed)}


def metered(measurement: Measurement, trace: Trace) -> Energy:
    """Energy by a meter between the device and its supply, whose log covers the run.

    The power in the timed blocks is the meter's, interpolated linearly; that before the measurement is taken
    as idle.

    Raises:
        ConfigError: a device that does not tell when its runs were, or a log that does not cover them.
    """
    m = measurement
    if m.timed_at is None or not m.block_at_s or not m.block_took_s:
        raise ConfigError(
            f"{m.device} does not tell when its runs were, so no meter's log can be held against them"
        )
    blocks = [
        (m.timed_at + at, m.timed_at + at + took)
        for at, took in zip(m.block_at_s, m.block_took_s, strict=True)
    ]
    begin, end = blocks[0][0], blocks[-1][1]
    if trace.times[0] > begin or trace.times[-1] < end:
        raise ConfigError(
            f"the meter's log goes from {_clock(trace.times[0])} to {_clock(trace.times[-1])}, the run from "
            f"{_clock(begin)} to {_clock(end)}",
            hint="start it before the run, end it after, and set the clocks of both by the network",
        )
    within = sum(bisect_right(trace.times, stop) - bisect_left(trace.times, start) for start, stop in blocks)
    if within < MIN_READINGS:
        raise ConfigError(
            f"{within} readings of the meter within {end - begin:.3g} s of runs are too few",
            hint="measure for longer: --min-time 10",
        )
    mean_w = sum(_joules(trace, *block) for block in blocks) / sum(m.block_took_s)
    if mean_w <= 0:
        raise ConfigError(
            f"the meter shows {mean_w:.3g} W during the run",
            hint="put it between the supply and the device, the right way round",
        )
    started = datetime.fromisoformat(m.started_at).timestamp()
    first, last = bisect_left(trace.times, started - IDLE_S), bisect_left(trace.times, started)
    assumed = [*trace.assumed]
    idle_w = None
    if last - first >= MIN_READINGS:
        idle_w = statistics.fmean(trace.watts[first:last])
        seconds = started - trace.times[first]
        assumed.append(f"the device was idle in the {seconds:.0f} s before the measurement")
    else:
        assumed.append("idle power is not known: the log begins with the measurement")
    return _energy(m, "meter", mean_w, idle_w, within, assumed)


def sensed(measurement: Measurement) -> Energy | None:
    """Energy by the device's own sensor; None where it has none or told too little."""
    told = [reading for reading in measurement.telemetry or () if reading.power_w is not None]
    busy = [reading.power_w for reading in told if reading.busy and reading.power_w is not None]
    rest = [
        reading.power_w
        for reading in told
        if not reading.busy and reading.at_s < 0 and reading.power_w is not None
    ]
    if len(busy) < MIN_READINGS or not measurement.block_took_s:
        return None
    assumed = ["the sensor sees what passes the power chip: neither its own loss nor USB devices"]
    if rest:
        assumed.append("the device was idle before the model was loaded")
    idle_w = statistics.median(rest) if rest else None  # the first was read while Python started
    return _energy(measurement, "sensor", statistics.fmean(busy), idle_w, len(busy), assumed)


def _energy(
    m: Measurement, source: str, mean_w: float, idle_w: float | None, readings: int, assumed: list[str]
) -> Energy:
    assert m.block_took_s
    seconds = sum(m.block_took_s) / (m.runs or len(m.samples_ms))
    if idle_w is not None and mean_w <= idle_w:
        assumed.append("nothing above idle could be told: the device drew no more while the model ran")
    return Energy(
        source=source,
        mean_w=mean_w,
        idle_w=idle_w,
        per_inference_mj=mean_w * seconds * 1e3,
        above_idle_mj=None if idle_w is None or mean_w <= idle_w else (mean_w - idle_w) * seconds * 1e3,
        readings=readings,
        assumed=tuple(assumed),
    )


def _joules(trace: Trace, start: float, stop: float) -> float:
    """The trace's integral, by trapezoids."""
    first, last = bisect_right(trace.times, start), bisect_left(trace.times, stop)
    times = [start, *trace.times[first:last], stop]
    watts = [_at(trace, start), *trace.watts[first:last], _at(trace, stop)]
    return math.fsum((times[i + 1] - times[i]) * (watts[i] + watts[i + 1]) / 2 for i in range(len(times) - 1))


def _at(trace: Trace, time: float) -> float:
    after = max(1, min(bisect_left(trace.times, time), len(trace.times) - 1))
    t0, t1 = trace.times[after - 1], trace.times[after]
    return trace.watts[after - 1] + (trace.watts[after] - trace.watts[after - 1]) * (time - t0) / (t1 - t0)


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).isoformat(sep=" ", timespec="seconds")
