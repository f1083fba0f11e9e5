"""Latency of bundles, on the devices that their targets name or on any other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.artifact import Artifact
from edgecnn.bundle.write import read
from edgecnn.devices.address import open_device
from edgecnn.devices.device import Device
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError
from edgecnn.measurement import Comparison, Measurement
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch

QUICK_S = 8.0
"""The longest that a quick measurement takes after its warm-up, which takes 2 s at most."""

if TYPE_CHECKING:
    from edgecnn.soak import Soak


def bench(
    bundle: str | Path,
    *,
    device: str | Device | None = None,
    threads: int = 1,
    cores: str | None = None,
    min_time_s: float = 2.0,
    min_runs: int = 50,
    max_time_s: float | None = None,
    progress: Progress = silent,
) -> Measurement:
    """Time a bundle in a process of its own, after a warm-up, for at least so long and so many runs.

    On any device but this machine, where the export has checked it, its outputs for the verification
    photographs are held against the graph.

    Args:
        bundle: the folder.
        device: a device or its address, as ``edgecnn devices`` takes it; None for what its target names.
        threads: of one inference.
        cores: that it is pinned to: ``big``, ``little`` or numbers as in ``0-3``; None: it is not.
        min_time_s: timed runs take at least this long.
        min_runs: and there are at least so many.
        max_time_s: but no longer than this; None for half a minute, or twice ``min_time_s``.
        progress: told how far it is.

    Raises:
        ConfigError: not a bundle, one whose files have changed, limits that cannot be reached, or text that
            is no device.
        MissingDependency: its runtime is not installed there.
        DeviceError: the device cannot be reached, or its runtime cannot run it.
        ParityError: the device computes something else than the graph.
    """
    artifact = read(Path(bundle))
    job = _job(artifact, threads, cores, min_time_s, min_runs, max_time_s)
    place = _place(artifact, device)
    with _verified(place, [(artifact, job)]) as ([job], check):
        measurement = place.measure(job, progress=progress)
        return check([measurement])[0]


@contextlib.contextmanager
def _verified(
    place: Device, asked: list[tuple[Artifact, Job]]
) -> Iterator[tuple[list[Job], Callable[[list[Measurement]], list[Measurement]]]]:
    """Jobs that bring outputs along, and what holds those against the graphs once they are there.

    Here, where the exports have checked their artifacts, both do nothing.
    """
    if place is LOCAL:
        yield [job for _, job in asked], lambda measured: measured
        return
    from edgecnn.bundle.expected import check_device, check_inputs

    with scratch("outputs") as folder:
        files = [Path(folder) / f"{number}.npy" for number in range(len(asked))]
        jobs = [
            replace(job, inputs=check_inputs(artifact), outputs=file)
            for (artifact, job), file in zip(asked, files, strict=True)
        ]

        def check(measured: list[Measurement]) -> list[Measurement]:
            return [
                replace(measurement, check=check_device(artifact, file, place.name).to_json())
                for measurement, (artifact, _), file in zip(measured, asked, files, strict=True)
            ]

        yield jobs, check


def compare(
    bundle: str | Path,
    against: str | Path,
    *,
    device: str | Device | None = None,
    threads: int = 1,
    cores: str | None = None,
    min_time_s: float = 2.0,
    min_runs: int = 50,
    max_time_s: float | None = None,
    progress: Progress = silent,
) -> tuple[Measurement, Measurement, Comparison]:
    """Time two bundles in turns on one device: the ratio of ``bundle`` over ``against`` with its interval.

    Returns:
        The measurement of ``against``, that of ``bundle``, and the comparison.

    Raises:
        ConfigError, MissingDependency, DeviceError: as `bench` does, for either.
    """
    artifacts = read(Path(against)), read(Path(bundle))
    place = _place(artifacts[1], device)
    asked = [
        (artifact, _job(artifact, threads, cores, min_time_s, min_runs, max_time_s)) for artifact in artifacts
    ]
    with _verified(place, asked) as (jobs, check):
        *measured, comparison = place.compare(*jobs, progress=progress)
        of_against, of_bundle = check(measured)
    return of_against, of_bundle, comparison


def soak(
    bundle: str | Path,
    seconds: float,
    *,
    device: str | Device | None = None,
    threads: int = 1,
    cores: str | None = None,
    progress: Progress = silent,
) -> Soak:
    """Run a bundle without a pause for so long, and see what heat makes of its latency.

    On any device but this machine a short `bench` comes first, so that its outputs are checked.

    Raises:
        ConfigError, MissingDependency, DeviceError: as `bench` does; too short a time.
    """
    from edgecnn.soak import soak as soak_on

    artifact = read(Path(bundle))
    place = _place(artifact, device)
    check = None
    if place is not LOCAL:
        first = bench(
            bundle, device=place, threads=threads, cores=cores, min_time_s=0.1, min_runs=1, progress=progress
        )
        check = first.check
    soaked = soak_on(place, _job(artifact, threads, cores, 2.0, 1, None), seconds, progress=progress)
    return replace(soaked, measurement=replace(soaked.measurement, check=check))


def _place(artifact: Artifact, device: str | Device | None) -> Device:
    if isinstance(device, Device):
        return device
    return open_device(artifact.device if device is None else device)


def check_limits(min_time_s: float, min_runs: int, max_time_s: float | None = None) -> None:
    """Refuse limits that no measurement can reach.

    Raises:
        ConfigError: a time that is not a positive number of seconds, or longer than the longest; no run.
    """
    if not (math.isfinite(min_time_s) and min_time_s > 0):
        raise ConfigError(f"a measurement cannot take {min_time_s:g} s", hint="a positive number of seconds")
    if min_runs < 1:
        raise ConfigError(f"a measurement cannot have {min_runs} runs", hint="1 or more")
    if max_time_s is not None and not max_time_s >= min_time_s:
        raise ConfigError(
            f"a measurement of at least {min_time_s:g} s cannot end within {max_time_s:g} s",
            hint="shorten the one or lengthen the other",
        )


def _job(
    artifact: Artifact,
    threads: int,
    cores: str | None,
    min_time_s: float,
    min_runs: int,
    max_time_s: float | None,
) -> Job:
    check_limits(min_time_s, min_runs, max_time_s)
    return Job(
        model=artifact.model,
        companions=artifact.companions,
        runtime=artifact.runtime,
        options=artifact.options,
        target=artifact.target,
        variant=artifact.variant,
        precision=artifact.precision,
        macs=artifact.macs,
        threads=threads,
        cores=cores,
        min_time_s=min_time_s,
        min_runs=min_runs,
        max_time_s=max(30.0, 2 * min_time_s) if max_time_s is None else max_time_s,
    )
