"""What to measure, and the folder in which it travels to the agent and back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.errors import ConfigError, DeviceError
from edgecnn.measurement import Measurement, field_values
from edgecnn.target import did_you_mean

CORES = r"big|little|\d+(-\d+)?(,\d+(-\d+)?)*"
"""What names cores."""


@dataclass(frozen=True)
class Job:
    """One model to be timed, with the labels that its `Measurement` will carry."""

    model: Path
    """The model file."""
    runtime: str
    """``tflite``, ``onnxruntime`` or ``openvino``."""
    target: str
    """Label: the target's name."""
    variant: str
    """Label: the model's full name."""
    precision: str
    """Label: ``fp32``, ``fp16`` or ``int8``."""
    macs: int | None = None
    """Label: multiply-accumulates of one inference."""
    companions: tuple[Path, ...] = ()
    """Files that the runtime expects beside the model, such as the ``.bin`` of an OpenVINO ``.xml``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the runtime as they are; `edgecnn.agent.runtimes` says what each takes."""
    threads: int = 1
    """Threads of one inference. One by default: what most edge deployments can spare, steadier than several
    on cores that differ or are shared, and comparable across machines."""
    min_time_s: float = 2.0
    """Timed blocks go on until they have taken this long in all."""
    min_runs: int = 50
    """And until they hold this many runs."""
    max_time_s: float = 30.0
    """But no longer than this, for models that take seconds a run."""
    warmup_max_s: float | None = None
    """The warm-up ends here even where it is not steady yet; None: as long as ``min_time_s``."""
    block_s: float = 0.1
    """Length of one timed block: the step of the progress, and of turns in a comparison."""
    block_samples: int | None = None
    """So many samples of a block are kept, evenly spread over its runs; None: all."""
    cores: str | None = None
    """Cores that the process is pinned to: ``big`` or ``little``, where the device's differ, or numbers as in
    ``0-3`` or ``4,6-7``; None: it is not."""
    inputs: NDArray[Any] | None = field(default=None, compare=False)
    """Any number of the model's batches along the first axis, in its dtype; None: one of seeded noise. The
    first is timed."""
    outputs: Path | None = None
    """Where the outputs for ``inputs`` go, as a ``.npy`` of the same length."""
    seed: int = 0
    """Of the input noise."""
    timeout_s: float = 120.0
    """A device that has reported nothing for this long, be it loading or running, is given up."""

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ConfigError(
                f"unknown runtime '{self.runtime}'", hint=did_you_mean(self.runtime, sorted(RUNTIMES))
            )
        if self.threads < 1:
            raise ConfigError(f"{self.threads} threads cannot run a model", hint="1 or more")
        if self.block_samples is not None and self.block_samples < 1:
            raise ConfigError(f"{self.block_samples} samples of a block say nothing", hint="1 or more")
        if self.cores is not None and not re.fullmatch(CORES, self.cores):
            raise ConfigError(
                f"'{self.cores}' names no cores", hint="big, little, or numbers as in 0-3 or 4,6-7"
            )
        if self.outputs is not None and self.inputs is None:
            raise ConfigError("outputs are asked for, but there are no inputs to compute them from")


def write_job(job: Job, folder: Path, *, paced: bool) -> None:
    """Put all that the agent needs into ``folder``; files are hard-linked where the file system allows.

    Raises:
        ConfigError: the model or a companion does not exist.
    """
    for path in (job.model, *job.companions):
        if not path.is_file():
            raise ConfigError(f"model file {path} does not exist")
        # Resolved, since a link to a relative symbolic link would lead nowhere from here.
        _link_or_copy(path.resolve(), folder / path.name)
    if job.inputs is not None:
        np.save(folder / "inputs.npy", job.inputs)
    request = {
        "runtime": job.runtime,
        "model": job.model.name,
        "options": job.options,
        "threads": job.threads,
        "min_time_s": job.min_time_s,
        "min_runs": job.min_runs,
        "max_time_s": job.max_time_s,
        "warmup_max_s": job.min_time_s if job.warmup_max_s is None else job.warmup_max_s,
        "block_s": job.block_s,
        "block_samples": job.block_samples,
        "cores": job.cores,
        "paced": paced,
        "seed": job.seed,
    }
    (folder / "job.json").write_text(json.dumps(request), encoding="utf-8")


def read_result(
    job: Job, folder: Path, *, device: str, started_at: str, timed_at: float | None = None
) -> Measurement:
    """The measurement that a finished agent left in ``folder``; its outputs go where the job wants them.

    Args:
        job: what was asked for.
        folder: the job's.
        device: label of the measurement.
        started_at: label of the measurement.
        timed_at: when the timed part began, by the clock here; None: by the device's own, which is this one
            or may be anything.

    Raises:
        DeviceError: no result, or one that does not hold a measurement.
    """
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if timed_at is not None:
            result["timed_at"] = timed_at
        files = [folder / path.name for path in (job.model, *job.companions)]
        measurement = Measurement(
            target=job.target,
            variant=job.variant,
            precision=job.precision,
            macs=job.macs,
            model_sha256=_sha256(files),
            model_size_bytes=sum(path.stat().st_size for path in files),
            device=device,
            runtime=job.runtime,
            options=job.options,
            threads=job.threads,
            started_at=started_at,
            **field_values(result),
        )
        if job.outputs is not None:
            shutil.copyfile(folder / "outputs.npy", job.outputs)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise DeviceError(f"{job.runtime} left no usable result for {job.model.name}: {error}") from error
    return measurement


def _link_or_copy(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, place)


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
