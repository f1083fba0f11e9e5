"""Google's ``benchmark_model``: what it prints.

Two programs have that name, TensorFlow Lite's and LiteRT's. Both are built on one class (``BenchmarkModel``
in tflite/tools/benchmark/benchmark_model.cc), and what is read here are lines of that class. Neither gives
single runs, on the screen or in its result file: only their number, first, last, smallest, largest and mean,
and since 2023 percentiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecnn.devices.agent_device import TOO_NEW
from edgecnn.errors import DeviceError, one_line

NAMES = ("benchmark_model", "android_aarch64_benchmark_model")
"""As built and as downloaded: what is looked for on a phone."""


@dataclass(frozen=True)
class Runs:
    """What the program says of a series of runs; it counts whole microseconds."""

    count: int
    """How many."""
    first_ms: float
    """The first."""
    min_ms: float
    """The shortest."""
    max_ms: float
    """The longest."""
    mean_ms: float
    """Their mean."""
    median_ms: float | None
    """Their median; None from a program that is older than that."""
    p5_ms: float | None
    """What one run in twenty stays below; None likewise."""
    p95_ms: float | None
    """What one run in twenty exceeds; None likewise."""

    @property
    def seconds(self) -> float:
        """How long all of them took."""
        return self.count * self.mean_ms / 1000

    @property
    def typical_ms(self) -> float:
        """The median, or the mean where there is no median."""
        return self.mean_ms if self.median_ms is None else self.median_ms


@dataclass(frozen=True)
class Report:
    """What one start of the program says."""

    load_ms: float
    """From the model's path to a model ready to run."""
    warmup: Runs
    """Runs before the timed ones."""
    timed: Runs
    """The timed runs."""
    memory_mb: float | None
    """Growth of the peak resident memory by the model, in MiB."""
    delegates: tuple[str, ...]
    """Delegates that it says it made, such as ``XNNPACK``."""


def parse(text: str) -> Report:
    """Read what the program printed, standard error among it.

    Raises:
        ValueError: not a report, or not the whole of one.
    """
    load = re.search(r"Initialized session in ([\d.e+]+) ?ms", text)
    series = [line for line in text.split("\n") if re.match(r"(INFO: )?count=\d", line)]
    if load is None or len(series) != 2:
        raise ValueError("no report of a warm-up and of timed runs")
    memory = re.search(r"(?:footprint delta|Peak memory footprint).*overall=([\d.]+)", text)
    return Report(
        load_ms=float(load.group(1)),
        warmup=_runs(series[0]),
        timed=_runs(series[1]),
        memory_mb=float(memory.group(1)) if memory else None,
        delegates=tuple(re.findall(r"Created TensorFlow Lite (\w+) delegate", text)),
    )


def _runs(line: str) -> Runs:
    us = {name: float(value) for name, value in re.findall(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)", line)}
    if not us["count"] or "curr" not in us:
        raise ValueError("no runs")
    # One run, or several of one duration, are given as the newest alone.
    ms = {name: value / 1000 for name, value in us.items()}
    only = ms["curr"]
    return Runs(
        count=int(us["count"]),
        first_ms=ms.get("first", only),
        min_ms=ms.get("min", only),
        max_ms=ms.get("max", only),
        mean_ms=ms.get("avg", only),
        median_ms=ms.get("median"),
        p5_ms=ms.get("p5"),
        p95_ms=ms.get("p95"),
    )


def failure(status: int, said: str, device: str, model: str) -> DeviceError:
    """Why it failed.

    Args:
        status: its exit status, 128 and more where a signal ended it.
        said: what it printed, standard error among it.
        device: name of the phone.
        model: name of the model.
    """
    about = f"benchmark_model on {device}"
    lines = [line.strip() for line in said.split("\n") if line.strip()] or ["no message"]
    if newer := next((line for line in lines if any(sign in line for sign in TOO_NEW)), None):
        return DeviceError(
            f"{about} is older than {model}: {one_line(newer.removeprefix('ERROR: '))}",
            hint="give a newer one: --benchmark-binary FILE",
        )
    if status in (126, 127):
        return DeviceError(
            f"{about} cannot be started: {one_line(lines[-1])}",
            hint="give the build for the phone's processor, mostly android_aarch64",
        )
    # Its last words are always the same; what went wrong stands before them.
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    why = [line for line in errors if line != "Benchmarking failed."] or lines
    ended = f"was ended by signal {status - 128}" if status > 128 else f"exited with status {status}"
    return DeviceError(f"{about} {ended} on {model}: {one_line(why[-1])}")
