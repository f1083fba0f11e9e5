"""This machine as a device: the agent in a child process, started by the same interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import edgecnn.agent
from edgecnn.devices.job import Job, read_result, write_job
from edgecnn.errors import DeviceError, MissingDependency
from edgecnn.measurement import MIN_PAIRS, Comparison, Measurement
from edgecnn.progress import Progress, silent

# Read by runtimes and numpy when they are imported: no library starts more threads than were asked for.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# What else Python reads from the environment traces, checks or prolongs a run; these say where packages are.
PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUSERBASE")

# Runtimes that are not among the package's own dependencies, by the extra that brings them.
EXTRAS = {"openvino": "openvino"}


def measure(job: Job, *, progress: Progress = silent) -> Measurement:
    """Time one model in a process of its own.

    The process ends with the call, however that ends, and when this process dies.

    Raises:
        ConfigError: a model file that does not exist.
        MissingDependency: the runtime is not installed; the hint says how to install it.
        DeviceError: the runtime refuses the model, crashes on it, or has been silent for ``job.timeout_s``.
    """
    with _Agent(job, paced=False) as agent:
        agent.wait_for("result", progress)
        return agent.measurement()


def compare(
    job_a: Job, job_b: Job, *, seed: int = 0, progress: Progress = silent
) -> tuple[Measurement, Measurement, Comparison]:
    """Time two models in turns, block by block, so that whatever else the machine does meets both alike.

    Each is timed for its own ``min_time_s`` and ``min_runs``, in at least 10 blocks, whose order within each
    pair is drawn with ``seed``. While one runs, the other waits for a line on its stdin. The first run of
    each block is not counted: the other had the caches, and threads of its runtime may still be spinning.

    Raises:
        ConfigError, MissingDependency, DeviceError: as `measure` does.
    """
    shortest_s = min(job_a.block_s, job_b.block_s, job_a.min_time_s / MIN_PAIRS, job_b.min_time_s / MIN_PAIRS)
    generator = random.Random(seed)
    with _Agent(replace(job_a, block_s=shortest_s), paced=True) as a:
        a.wait_for("warm", progress)
        with _Agent(replace(job_b, block_s=shortest_s), paced=True) as b:
            b.wait_for("warm", progress)
            pairs = 0
            while pairs < MIN_PAIRS or not (a.enough and b.enough):
                for agent in generator.sample((a, b), 2):
                    agent.send("go")
                    agent.wait_for("block")
                pairs += 1
                progress("measuring", min(a.done, b.done, pairs / MIN_PAIRS), 1.0)
            for agent in (a, b):
                agent.send("end")
                agent.wait_for("result")
            measurements = a.measurement(), b.measurement()
    return (*measurements, Comparison.between(*measurements, seed=seed))


class _Agent:
    """A running agent and its job folder; leaving the context ends the one and removes the other."""

    def __init__(self, job: Job, *, paced: bool) -> None:
        self.enough = False
        self.done = 0.0
        self._job = job
        self._doing = "loading"
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._directory = tempfile.TemporaryDirectory(prefix="edgecnn-", ignore_cleanup_errors=True)
        self._folder = Path(self._directory.name)
        self._lines: queue.Queue[str | None] = queue.Queue()
        try:
            write_job(job, self._folder, paced=paced)
            with (self._folder / "stderr.txt").open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, str(Path(edgecnn.agent.__file__).parent), str(self._folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment(job.threads),
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except BaseException:
            self._directory.cleanup()
            raise
        threading.Thread(target=self._read_lines, daemon=True).start()

    def __enter__(self) -> _Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin
        with contextlib.suppress(OSError):  # a command that a dead agent never read is still in the buffer
            self._process.stdin.close()
        self._directory.cleanup()

    def send(self, command: str) -> None:
        """Write one line to the agent's stdin."""
        assert self._process.stdin
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def wait_for(self, wanted: str, progress: Progress = silent) -> None:
        """Follow the agent's events up to the wanted one."""
        name = ""
        while name != wanted:
            progress(self._doing, self.done, 1.0)
            event = self._next_event()
            name = event["event"]
            if name == "error":
                raise self._refusal(event)
            if name == "loaded":
                self._doing = "warming up"
            if name == "warm":
                self._doing = "measuring"
            if name == "block":
                self.enough = event["enough"]
                time_done = event["seconds"] / self._job.min_time_s if self._job.min_time_s else 1.0
                runs_done = event["runs"] / self._job.min_runs if self._job.min_runs else 1.0
                self.done = 1.0 if self.enough else min(time_done, runs_done)

    def measurement(self) -> Measurement:
        """What the finished agent measured."""
        return read_result(self._job, self._folder, device="local", started_at=self._started_at)

    def _read_lines(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _next_event(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._job.timeout_s)
        except queue.Empty:
            raise DeviceError(
                f"{self._about()} has reported nothing for {self._job.timeout_s:g} s while {self._doing}"
            ) from None
        if line is None:
            raise self._death()
        try:
            event = json.loads(line)
            return {"event": event["event"], **event}
        except (ValueError, TypeError, KeyError) as error:
            raise DeviceError(f"{self._about()} reported '{line.strip()[:80]}', which is no event") from error

    def _about(self) -> str:
        return f"{self._job.runtime} with {self._job.model.name}"

    def _refusal(self, event: dict[str, Any]) -> DeviceError | MissingDependency:
        said = " ".join(event["message"].split())  # runtimes report in paragraphs, an error is one line
        if event["kind"] == "unavailable":
            extra = EXTRAS.get(self._job.runtime)
            return MissingDependency(
                f"{self._job.runtime} cannot be imported: {said}",
                hint=f"pip install 'edgecnn[{extra}]'" if extra else "pip install edgecnn",
            )
        return DeviceError(f"{self._about()} failed while {self._doing}: {said}")

    def _death(self) -> DeviceError:
        """Why the agent is gone without its closing line: its status, and the last it said."""
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return DeviceError(f"{self._about()} closed its output without a result while {self._doing}")
        said = (self._folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "no message")
        if status < 0:
            try:
                how = f"was ended by {signal.Signals(-status).name}"
            except ValueError:
                how = f"was ended by signal {-status}"
        else:
            how = f"exited with status {status} and no result"
        return DeviceError(f"{self._about()} {how} while {self._doing}: {last}")


def _environment(threads: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") or name in PYTHON_VARIABLES
    }
    return {**kept, **{name: str(threads) for name in THREAD_VARIABLES}}
