"""Latency of bundles, on the devices that their targets name or on any other."""

from __future__ import annotations

import math
import tempfile
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
        progress: told how far it is.

    Raises:
        ConfigError: not a bundle, one whose files have changed, limits that cannot be reached, or text that
            is no device.
        MissingDependency: its runtime is not installed there.
        DeviceError: the device cannot be reached, or its runtime cannot run it.
        ParityError: the device computes something else than the graph.
    """
    artifact = read(Path(bundle))
    job = _job(artifact, threads, cores, min_time_s, min_runs)
    place = _place(artifact, device)
    if place is LOCAL:
        return place.measure(job, progress=progress)
    from edgecnn.bundle.expected import check_device, check_inputs

    with tempfile.TemporaryDirectory(prefix="edgecnn-outputs-") as folder:
        outputs = Path(folder) / "outputs.npy"
        job = replace(job, inputs=check_inputs(artifact), outputs=outputs)
        measurement = place.measure(job, progress=progress)
        check = check_device(artifact, outputs, place.name)
    return replace(measurement, check=check.to_json())


def compare(
    bundle: str | Path,
    against: str | Path,
    *,
    device: str | Device | None = None,
    threads: int = 1,
    cores: str | None = None,
    min_time_s: float = 2.0,
    min_runs: int = 50,
    progress: Progress = silent,
) -> tuple[Measurement, Measurement, Comparison]:
    """Time two bundles in turns on one device: the ratio of ``bundle`` over ``against`` with its interval.

    Returns:
        The measurement of ``against``, that of ``bundle``, and the comparison.

    Raises:
        ConfigError, MissingDependency, DeviceError: as `bench` does, for either.
    """
    first, second = read(Path(against)), read(Path(bundle))
    jobs = [_job(artifact, threads, cores, min_time_s, min_runs) for artifact in (first, second)]
    return _place(second, device).compare(jobs[0], jobs[1], progress=progress)


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

    Raises:
        ConfigError, MissingDependency, DeviceError: as `bench` does; too short a time.
    """
    from edgecnn.soak import soak as soak_on

    artifact = read(Path(bundle))
    job = _job(artifact, threads, cores, 2.0, 1)
    return soak_on(_place(artifact, device), job, seconds, progress=progress)


def _place(artifact: Artifact, device: str | Device | None) -> Device:
    if isinstance(device, Device):
        return device
    return open_device(artifact.device if device is None else device)


def check_limits(min_time_s: float, min_runs: int) -> None:
    """Refuse limits that no measurement can reach.

    Raises:
        ConfigError: a time that is not a positive number of seconds, or no run at all.
    """
    if not (math.isfinite(min_time_s) and min_time_s > 0):
        raise ConfigError(f"a measurement cannot take {min_time_s:g} s", hint="a positive number of seconds")
    if min_runs < 1:
        raise ConfigError(f"a measurement cannot have {min_runs} runs", hint="1 or more")


def _job(artifact: Artifact, threads: int, cores: str | None, min_time_s: float, min_runs: int) -> Job:
    check_limits(min_time_s, min_runs)
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
        max_time_s=max(30.0, 2 * min_time_s),
    )
