"""Latency of bundles on this machine."""

from __future__ import annotations

import math
from pathlib import Path

from edgecnn.artifact import Artifact
from edgecnn.bundle.write import read
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError
from edgecnn.measurement import Comparison, Measurement
from edgecnn.progress import Progress, silent


def bench(
    bundle: str | Path,
    *,
    threads: int = 1,
    min_time_s: float = 2.0,
    min_runs: int = 50,
    progress: Progress = silent,
) -> Measurement:
    """Time a bundle in a process of its own, after a warm-up, for at least so long and so many runs.

    Raises:
        ConfigError: not a bundle, one whose files have changed, or limits that cannot be reached.
        MissingDependency: its runtime is not installed.
        DeviceError: the runtime cannot run it.
    """
    return LOCAL.measure(_job(read(Path(bundle)), threads, min_time_s, min_runs), progress=progress)


def compare(
    bundle: str | Path,
    against: str | Path,
    *,
    threads: int = 1,
    min_time_s: float = 2.0,
    min_runs: int = 50,
    progress: Progress = silent,
) -> tuple[Measurement, Measurement, Comparison]:
    """Time two bundles in turns, and give the ratio of ``bundle`` over ``against`` with its interval.

    Returns:
        The measurement of ``against``, that of ``bundle``, and the comparison.

    Raises:
        ConfigError, MissingDependency, DeviceError: as `bench` does, for either.
    """
    jobs = [_job(read(Path(path)), threads, min_time_s, min_runs) for path in (against, bundle)]
    return LOCAL.compare(jobs[0], jobs[1], progress=progress)


def check_limits(min_time_s: float, min_runs: int) -> None:
    """Refuse limits that no measurement can reach.

    Raises:
        ConfigError: a time that is not a positive number of seconds, or no run at all.
    """
    if not (math.isfinite(min_time_s) and min_time_s > 0):
        raise ConfigError(f"a measurement cannot take {min_time_s:g} s", hint="a positive number of seconds")
    if min_runs < 1:
        raise ConfigError(f"a measurement cannot have {min_runs} runs", hint="1 or more")


def _job(artifact: Artifact, threads: int, min_time_s: float, min_runs: int) -> Job:
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
        min_time_s=min_time_s,
        min_runs=min_runs,
        max_time_s=max(30.0, 2 * min_time_s),
    )
