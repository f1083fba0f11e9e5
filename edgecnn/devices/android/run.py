"""A model that Google's ``benchmark_model`` times on a phone.

Since it tells no single runs, one start of it is one block, and one sample is the median of one block.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

from edgecnn.agent.loop import STEADY_WITHIN
from edgecnn.agent.runtimes import TensorSpec
from edgecnn.devices.android import phone
from edgecnn.devices.android.benchmark_model import Report, failure, parse
from edgecnn.devices.android.client import Shell
from edgecnn.devices.job import Job, read_result, write_job
from edgecnn.errors import ConfigError, DeviceError, one_line
from edgecnn.measurement import MIN_RUNS, Measurement
from edgecnn.progress import Progress
from edgecnn.scratch import scratch

# Of each block: its process is new, and pages, caches and clock have to come up first.
_BLOCK_WARMUP_S = 0.2
# A median of fewer would be one run or the mean of two.
_BLOCK_RUNS = 3
# Long enough for what starts a block to be a small part of it, short enough for a curve over a long time.
_BLOCK_S = 1.0


class PhoneRun:
    """One model that ``benchmark_model`` times on a phone, block by block.

    Its files lie in a folder of their own inside the shell's, with which they go.
    """

    def __init__(self, shell: Shell, program: str, job: Job, cores: list[int] | None, folder: str) -> None:
        """Bring the model, and the inputs where there are some.

        Args:
            shell: of the phone.
            program: path of ``benchmark_model`` there.
            job: a tflite job.
            cores: that it is pinned to; None for all.
            folder: name of a folder to make there.

        Raises:
            ConfigError: no such model, options that only an interpreter takes, or inputs that do not fit.
            DeviceError: the phone is gone or full.
        """
        if job.options:
            raise ConfigError(
                f"benchmark_model takes no options of an interpreter: {', '.join(job.options)}",
                hint="leave [options] out of the target",
            )
        mask = sum(1 << core for core in cores or [])
        self._command = [*(["taskset", f"{mask:x}"] if mask else []), program]
        self._shell, self._program, self._job, self._cores = shell, program, job, cores
        self._here = scratch("phone")
        self._folder = f"{shell.folder}/{folder}"
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._began = 0.0
        self._warmup: list[Report] = []
        self._blocks: list[tuple[float, Report]] = []
        self._warm = False
        try:
            self._bring()
        except BaseException:
            self.close()
            raise

    @property
    def enough(self) -> bool:
        """Whether the job's limits are reached, by enough blocks for a median that can be relied on."""
        return self._seconds >= self._job.max_time_s or self.done >= 1

    @property
    def done(self) -> float:
        """How much of what is asked for is done, from 0 to 1."""
        job = self._job
        runs = sum(report.timed.count for _, report in self._blocks)
        shares = [len(self._blocks) / MIN_RUNS]
        shares += [self._seconds / job.min_time_s] if job.min_time_s else []
        shares += [runs / job.min_runs] if job.min_runs else []
        return min(1.0, *shares)

    @property
    def _seconds(self) -> float:
        return sum(report.timed.seconds for _, report in self._blocks)

    def compute_outputs(self, progress: Progress) -> None:
        """Run each batch of the job's inputs once, and keep what comes out for the measurement.

        Raises:
            DeviceError: the program fails, or is of a kind that writes no outputs.
        """
        import numpy as np

        if self._job.inputs is None:
            return
        batches = len(self._job.inputs) // self._input.shape[0]
        once = ["--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
        # From the last to the first, which then stays to be timed.
        for batch in reversed(range(batches)):
            progress("checking outputs", batches - 1 - batch, batches)
            self._cut(batch)
            said = self._start([*once, *self._input_flags(), f"--output_filepath={self._folder}/{batch}.out"])
            status, _ = self._shell.run("test", "-s", f"{self._folder}/{batch}.out")
            if status != 0:
                ignored = re.search(r"Unconsumed cmdline flags: (.*)", said)
                raise DeviceError(
                    f"the benchmark_model on {self._shell.adb.name} writes no outputs"
                    + (f": it does not know {one_line(ignored.group(1))}" if ignored else ""),
                    hint="give TensorFlow Lite's, of 2023 or later: --benchmark-binary FILE",
                )
        parts = " ".join(f"{batch}.out" for batch in range(batches))
        self._shell.run("sh", "-c", f"cd {self._folder} && cat {parts} >outputs.bin")
        here = Path(self._here.name) / "outputs.bin"
        dtype = np.dtype(self._output.dtype)
        size = batches * math.prod(self._output.shape) * dtype.itemsize
        self._shell.adb.pull(f"{self._folder}/outputs.bin", here, size)
        shape = (batches * self._output.shape[0], *self._output.shape[1:])
        np.save(here.with_name("outputs.npy"), np.fromfile(here, dtype).reshape(shape))

    def warm_up(self, progress: Progress) -> None:
        """Run blocks that do not count until the newest is within 2 % of the one before.

        Raises:
            DeviceError: the program fails.
        """
        limit_s = self._job.min_time_s if self._job.warmup_max_s is None else self._job.warmup_max_s
        began = time.monotonic()
        progress("loading", 0, 1)
        self._warmup.append(self._block())
        while len(self._warmup) < 2 or (not self._warm and time.monotonic() - began < limit_s):
            progress("warming up", 0, 1)
            self._warmup.append(self._block())
            before, newest = (report.timed.typical_ms for report in self._warmup[-2:])
            self._warm = abs(newest - before) <= STEADY_WITHIN * before

    def time_block(self) -> None:
        """Run one block that counts.

        Raises:
            DeviceError: the program fails.
        """
        self._began = self._began or time.time()
        self._blocks.append((time.time() - self._began, self._block()))

    def measurement(self, facts: phone.Facts, states: list[phone.State]) -> Measurement:
        """What was measured.

        Args:
            facts: of the phone.
            states: of the phone, the first before the timed blocks and the last after them.

        Raises:
            DeviceError: nothing usable.
        """
        timed = [report.timed for _, report in self._blocks]
        first = self._warmup[0]
        cores = list(facts.top_mhz) if self._cores is None else self._cores
        # The program names no version.
        status, said = self._shell.run("sha256sum", self._program)
        sha256 = said.split()[0] if status == 0 and said else None
        result = {
            "runtime_version": f"benchmark_model {sha256[:12]}" if sha256 else "benchmark_model",
            "load_ms": first.load_ms,
            "first_ms": first.warmup.first_ms,
            "warmup_ms": [report.timed.typical_ms for report in self._warmup],
            "warm": self._warm,
            "samples_ms": [runs.typical_ms for runs in timed],
            "block_runs": [1] * len(timed),
            "runs": sum(runs.count for runs in timed),
            "timed_at": self._began,
            "block_at_s": [at for at, _ in self._blocks],
            "block_took_s": [runs.seconds for runs in timed],
            "cores": self._cores,
            "cpu_count": len(cores) or None,
            "cpu_model": facts.cpu_model,
            "cpu_arch": facts.cpu_arch,
            "cpu_features": facts.cpu_features,
            "os": facts.os,
            **phone.state_fields(states, self._began, cores),
        }
        here = Path(self._here.name)
        (here / "result.json").write_text(json.dumps(result), encoding="utf-8")
        program = {
            "sha256": sha256,
            "sample": "mean of a block" if timed[0].median_ms is None else "median of a block",
            "delegates": list(first.delegates),
            "memory_mb": first.memory_mb,
            "block_runs": [runs.count for runs in timed],
            **{
                f"block_{name}_ms": [getattr(runs, f"{name}_ms") for runs in timed]
                for name in ("min", "p5", "mean", "p95", "max")
            },
        }
        job = replace(self._job, options={"benchmark_model": program, "phone": phone.record(facts, states)})
        return read_result(job, here, device=self._shell.adb.name, started_at=self._started_at)

    def close(self) -> None:
        """Remove the files here."""
        self._here.cleanup()

    def _bring(self) -> None:
        job, here = self._job, Path(self._here.name)
        write_job(job, here, paced=False)
        files = [here / job.model.name]
        if job.inputs is not None:
            self._input, self._output = model_tensors(job.model)
            _check_inputs(job, self._input)
            files.append(here / "inputs.bin")
            files[1].write_bytes(job.inputs.tobytes())
        self._shell.run("mkdir", self._folder)
        self._shell.adb.push(files, self._folder)

    def _block(self) -> Report:
        job = self._job
        block_s = max(job.block_s, min(_BLOCK_S, job.min_time_s / MIN_RUNS))
        flags = [f"--num_runs={_BLOCK_RUNS}", f"--min_secs={block_s}", f"--max_secs={job.max_time_s}"]
        flags += ["--warmup_runs=1", f"--warmup_min_secs={_BLOCK_WARMUP_S}"]
        said = self._start([*flags, *([] if job.inputs is None else self._input_flags())])
        try:
            return parse(said)
        except (ValueError, KeyError) as error:
            last = one_line(said.strip().rpartition("\n")[2])
            raise DeviceError(
                f"benchmark_model on {self._shell.adb.name} ended with '{last}', which is no report",
                hint="give TensorFlow Lite's: --benchmark-binary FILE",
            ) from error

    def _start(self, flags: list[str]) -> str:
        """Run the program to its end, and give what it printed."""
        graph = f"--graph={self._folder}/{self._job.model.name}"
        threads = f"--num_threads={self._job.threads}"
        status, said = self._shell.run(*self._command, graph, threads, *flags, timeout_s=self._job.timeout_s)
        if status != 0:
            raise failure(status, said, self._shell.adb.name, self._job.model.name)
        return said

    def _cut(self, batch: int) -> None:
        """Make one batch of the inputs the file that the program reads."""
        assert self._job.inputs is not None
        size = self._input.shape[0] * (self._job.inputs.nbytes // len(self._job.inputs))
        of, source = f"of={self._folder}/input.bin", f"if={self._folder}/inputs.bin"
        status, said = self._shell.run("dd", source, of, f"bs={size}", f"skip={batch}", "count=1")
        if status != 0:
            raise DeviceError(f"{self._shell.adb.name} did not cut the inputs: {one_line(said)}")

    def _input_flags(self) -> list[str]:
        """The name is ours: inputs are matched by position, and their names may hold its separators."""
        shape = ",".join(map(str, self._input.shape))
        return [
            "--input_layer=input",
            f"--input_layer_shape={shape}",
            f"--input_layer_value_files=input:{self._folder}/input.bin",
        ]


def model_tensors(path: Path) -> tuple[TensorSpec, TensorSpec]:
    """The input and the output of a TFLite file that has one of each.

    Raises:
        ConfigError: no such file, or other numbers of them.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {
        number: name.lower() for name, number in vars(schema.TensorType).items() if not name.startswith("_")
    }
    try:
        graph = schema.Model.GetRootAsModel(path.read_bytes(), 0).Subgraphs(0)
        counts = graph.InputsLength(), graph.OutputsLength()
        tensors = [graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0))]
        specs = [
            TensorSpec(
                tensor.Name().decode(errors="replace"),
                names[tensor.Type()],
                tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength())),
            )
            for tensor in tensors
        ]
    except Exception as error:  # flatbuffers raises whatever a wrong offset leads to
        raise ConfigError(f"{path.name} is no TFLite file: {one_line(error)}") from error
    if counts != (1, 1):
        raise ConfigError(f"{path.name} has {counts[0]} inputs and {counts[1]} outputs, not one of each")
    return specs[0], specs[1]


def _check_inputs(job: Job, spec: TensorSpec) -> None:
    assert job.inputs is not None
    shape = job.inputs.shape
    fits = shape[1:] == spec.shape[1:] and len(job.inputs) > 0 and shape[0] % spec.shape[0] == 0
    if not fits or job.inputs.dtype.name != spec.dtype:
        raise ConfigError(
            f"the inputs are {job.inputs.dtype.name} {list(shape)}, "
            f"{job.model.name} takes {spec.dtype} {list(spec.shape)}"
        )
