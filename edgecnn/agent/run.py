"""One job from its folder to its result."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

from . import cores, host
from .channel import Channel
from .loop import timed_runs, warm_up
from .runtimes import RUNTIMES, Loaded, TensorSpec, Unavailable, import_runtime
from .telemetry import OtherWork, Telemetry

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def main(arguments: list[str]) -> int:
    """Carry out the job in the folder named on the command line, or say what the machine is and has
    (``--probe``); the exit status is 0 where that was done."""
    if len(arguments) != 1:
        print("usage: python agent JOBDIR | --probe", file=sys.stderr)
        return 2
    channel = Channel()
    try:
        if arguments[0] == "--probe":
            channel.emit("probe", **probe())
        else:
            run_job(arguments[0], channel)
    except Unavailable as error:
        channel.emit("error", kind="unavailable", message=str(error))
        return 1
    except cores.Refused as error:
        channel.emit("error", kind="refused", message=str(error))
        return 1
    except Exception as error:  # whatever a runtime raises: the parent needs its sentence, not our stack
        channel.emit("error", kind="failed", message=f"{type(error).__name__}: {error}")
        return 1
    channel.emit("result")
    # Without the runtime's own teardown: the result is written, and nothing after it can hang or crash.
    os._exit(0)


def probe() -> dict[str, Any]:
    """What the machine is, and the version of each runtime that can be imported, None for the others."""
    versions: dict[str, str | None] = {}
    for name in RUNTIMES:
        try:
            import numpy  # noqa: F401

            versions[name] = import_runtime(name)[1] or "unknown version"
        except (ImportError, Unavailable):
            versions[name] = None
    about = {"python_version": platform.python_version(), **host.facts(), **host.snapshot()}
    return {"about": about, "runtimes": versions}


def run_job(folder: str, channel: Channel) -> None:
    """Load, warm up, time, and write ``result.json`` and ``outputs.npy``.

    Raises:
        cores.Refused: there are no such cores as the job wants.
        Unavailable: numpy or the runtime cannot be imported.
        ValueError: the job or its inputs do not fit the model.
        Exception: whatever the runtime raises for a model that it cannot load or run.
    """
    with open(os.path.join(folder, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
    # Before anything starts threads: they are pinned with the one that starts them.
    pinned = None if job["cores"] is None else cores.pin(job["cores"])
    telemetry = Telemetry()
    telemetry.read_at_rest()
    try:
        import numpy as np
    except ImportError as error:
        raise Unavailable(str(error)) from error
    module, runtime_version = import_runtime(job["runtime"])
    memory_before = host.peak_memory_bytes()

    began = time.perf_counter_ns()
    path = os.path.join(folder, job["model"])
    model = RUNTIMES[job["runtime"]].load(module, path, job["threads"], job["options"])
    load_ms = (time.perf_counter_ns() - began) / 1e6

    given = os.path.join(folder, "inputs.npy")
    # Mapped, so that a thousand images do not count as the model's memory.
    batches = _batches(np.load(given, mmap_mode="r"), model.inputs) if os.path.exists(given) else None
    arrays = [np.array(batches[0])] if batches else [_random(spec, job["seed"]) for spec in model.inputs]

    def prepare() -> None:
        model.bind(arrays)

    def untimed() -> None:
        prepare()
        model.infer()

    first_ms = timed_runs(prepare, model.infer, min_s=0)[0]
    channel.emit("loaded", load_ms=load_ms, first_ms=first_ms)
    warmup_ms, warm = warm_up(prepare, model.infer, job["warmup_max_s"])
    settings_before, before = host.settings(), telemetry.read(untimed)
    timed_at, timed_began = time.time(), time.perf_counter()
    channel.emit("warm", runs=len(warmup_ms), steady=warm)

    samples_ms: list[float] = []
    block_runs: list[int] = []
    block_at_s: list[float] = []
    block_took_s: list[float] = []
    others = OtherWork()
    runs, seconds = 0, 0.0
    enough = False

    def another_block() -> bool:
        return channel.next_command() != "end" if job["paced"] else not enough

    while another_block():
        if job["paced"]:  # another process had the caches and the clock meanwhile
            warmup_ms += timed_runs(prepare, model.infer, min_s=0)
        others.begin()
        block_began = time.perf_counter()
        block = timed_runs(prepare, model.infer, min_s=job["block_s"])
        took = time.perf_counter() - block_began
        others.end()
        kept = _spread(block, job["block_samples"])
        samples_ms += kept
        block_runs.append(len(kept))
        block_at_s.append(block_began - timed_began)
        block_took_s.append(took)
        runs += len(block)
        seconds += took
        enough = seconds >= job["max_time_s"] or (seconds >= job["min_time_s"] and runs >= job["min_runs"])
        if job["paced"] or not enough:
            telemetry.read_if_due(untimed)
        channel.emit("block", runs=runs, seconds=seconds, enough=enough)

    settings_after, after = host.settings(), telemetry.read(untimed, battery=True)
    # Read before the outputs are computed: they are no part of what one inference needs.
    peak_memory = host.peak_memory_bytes()
    if batches:
        np.save(os.path.join(folder, "outputs.npy"), _outputs(model, batches))
    result = {
        "load_ms": load_ms,
        "first_ms": first_ms,
        "warmup_ms": warmup_ms,
        "warm": warm,
        "samples_ms": samples_ms,
        "block_runs": block_runs,
        "runtime_version": runtime_version,
        "python_version": platform.python_version(),
        "numpy_version": np.__version__,
        "memory_before_bytes": memory_before,
        "peak_memory_bytes": peak_memory,
        "governor": settings_after["governor"],
        "load_before": settings_before["load"],
        "load_after": settings_after["load"],
        "cores": pinned,
        "other_cpu": others.share,
        "timed_at": timed_at,
        "block_at_s": block_at_s,
        "block_took_s": block_took_s,
        "runs": runs,
        **host.facts(),
        **telemetry.result(timed_began),
        **{f"{name}_before": before[name] for name in ("frequency_mhz", "temperature_c")},
        **{f"{name}_after": after[name] for name in ("frequency_mhz", "temperature_c")},
    }
    with open(os.path.join(folder, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)


def _spread(block: list[float], count: int | None) -> list[float]:
    """So many samples of a block, evenly spread over it; None or more than there are: all."""
    if count is None or len(block) <= count:
        return block
    return [block[place * len(block) // count] for place in range(count)]


def _random(spec: TensorSpec, seed: int) -> Array:
    """Uniform in [0, 1) for floats, over the full range for integers."""
    import numpy as np

    generator = np.random.default_rng(seed)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.random(spec.shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, spec.shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, spec.shape, dtype=dtype, endpoint=True)


def _batches(given: Array, inputs: list[TensorSpec]) -> list[Array]:
    """Cut ``inputs.npy``, any number of the model's batches along the first axis, into single ones."""
    if len(inputs) != 1:
        raise ValueError(f"inputs.npy holds one tensor, the model takes {len(inputs)}")
    spec = inputs[0]
    fits = given.shape[1:] == spec.shape[1:] and len(given) > 0 and len(given) % spec.shape[0] == 0
    if not fits or given.dtype.name != spec.dtype:
        raise ValueError(
            f"inputs.npy is {given.dtype.name} {list(given.shape)}, "
            f"'{spec.name}' takes {spec.dtype} {list(spec.shape)}"
        )
    size = spec.shape[0]
    return [given[at : at + size] for at in range(0, len(given), size)]


def _outputs(model: Loaded, batches: list[Array]) -> Array:
    """The model's one output for every batch, joined along the first axis."""
    import numpy as np

    results = []
    for batch in batches:
        model.bind([np.array(batch)])
        model.infer()
        outputs = model.outputs()
        if len(outputs) != 1:
            raise ValueError(f"outputs.npy holds one tensor, the model gives {len(outputs)}")
        results.append(outputs[0])
    return np.concatenate(results)
