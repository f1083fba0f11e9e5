"""Devices that run the agent: one job, or two in turns, over standard input and output of a process.

The process may be the agent itself on this machine, or what carries its input and output to another one.
Either way events come line by line, and a run counts only when ``result`` was the last of them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import random
import signal
import subprocess
import threading
import time
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgecnn.devices.device import Device, Probe
from edgecnn.devices.job import Job, read_result, write_job
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency, last_line
from edgecnn.measurement import MIN_PAIRS, Comparison, Measurement
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch

# Read by runtimes and numpy when they are imported: no library starts more threads than were asked for.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# A board takes some seconds to start Python and import a runtime.
_PROBE_S = 60.0
TOO_NEW = (
    "Didn't find op for builtin opcode",  # tflite/core/api/op_resolver.cc
    "Op builtin_code out of range",
    "Unsupported model IR version",  # onnxruntime/core/graph/model.cc
    "Current official support for domain",
)
"""What runtimes say of a model that is newer than themselves."""

# What the agent may leave in the job folder.
_RESULTS = ("result.json", "outputs.npy")


class AgentDevice(Device):
    """A machine on which the agent can be started."""

    def measure(self, job: Job, *, progress: Progress = silent) -> Measurement:
        """Time one model in a process of its own, which ends with the call, however that ends, and when this
        process dies.

        Raises:
            ConfigError, MissingDependency, DeviceError: as the base class says.
        """
        with _Session(self, job, paced=False, progress=progress) as session:
            session.wait_for("result", progress)
            return session.measurement()

    def compare(
        self, job_a: Job, job_b: Job, *, seed: int = 0, progress: Progress = silent
    ) -> tuple[Measurement, Measurement, Comparison]:
        """Time two models in turns, block by block, so that whatever else the machine does meets both alike.

        Each is timed for its own ``min_time_s`` and ``min_runs``, in at least 10 blocks, whose order within
        each pair is drawn with ``seed``. While one runs, the other waits for a line on its stdin. The first
        run of each block is not counted: the other had the caches, and threads of its runtime may still be
        spinning.

        Raises:
            ConfigError, MissingDependency, DeviceError: as `measure` does.
        """
        shortest_s = min(
            job_a.block_s, job_b.block_s, job_a.min_time_s / MIN_PAIRS, job_b.min_time_s / MIN_PAIRS
        )
        generator = random.Random(seed)
        with _Session(self, replace(job_a, block_s=shortest_s), paced=True, progress=progress) as a:
            a.wait_for("warm", progress)
            with _Session(self, replace(job_b, block_s=shortest_s), paced=True, progress=progress) as b:
                b.wait_for("warm", progress)
                pairs = 0
                while pairs < MIN_PAIRS or not (a.enough and b.enough):
                    for session in generator.sample((a, b), 2):
                        session.send("go")
                        session.wait_for("block")
                    pairs += 1
                    progress("measuring", min(a.done, b.done, pairs / MIN_PAIRS), 1.0)
                for session in (a, b):
                    session.send("end")
                    session.wait_for("result")
                measurements = a.measurement(), b.measurement()
        return (*measurements, Comparison.between(*measurements, seed=seed))

    def probe(self) -> Probe:
        """As the base class says."""
        with _Session(self, None, paced=False, progress=silent) as session:
            event = session.wait_for("probe")
        about, runtimes = event["about"], event["runtimes"]
        absent = [
            str(self.missing(name, "not installed").hint) for name in runtimes if runtimes[name] is None
        ]
        return Probe(about, runtimes, tuple(absent))

    @abstractmethod
    def start(
        self, folder: Path, threads: int, errors: IO[bytes], progress: Progress
    ) -> subprocess.Popen[bytes]:
        """Start the agent on a job folder.

        Args:
            folder: holds ``job.json``, the model, and perhaps inputs, or nothing to ask what the machine is.
                The agent's files come there, or as ``file`` events.
            threads: that libraries may start.
            errors: takes what the process says on standard error.
            progress: told how far the job has travelled.

        Returns:
            A process whose standard output gives the agent's events and whose standard input takes its
            commands. Killing it ends the agent.
        """

    @abstractmethod
    def missing(self, runtime: str, said: str) -> MissingDependency:
        """What to raise where the device cannot import a runtime."""

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """Why the device never started the agent, where exit status and error output tell; else None."""
        return None


class _Session:
    """A running agent and its job folder here; leaving the context ends the one and removes the other."""

    def __init__(self, device: AgentDevice, job: Job | None, *, paced: bool, progress: Progress) -> None:
        self.enough = False
        self.done = 0.0
        self._device, self._job = device, job
        self._timeout_s = _PROBE_S if job is None else job.timeout_s
        self._doing = "loading"
        self._heard = False
        self._timed_at: float | None = None
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._directory = scratch("job")
        self._folder = Path(self._directory.name)
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        try:
            if job is not None:
                write_job(job, self._folder, paced=paced)
            with (self._folder / "stderr.txt").open("wb") as errors:
                threads = 1 if job is None else job.threads
                self._process = device.start(self._folder, threads, errors, progress)
        except BaseException:
            self._directory.cleanup()
            raise
        threading.Thread(target=self._read_lines, daemon=True).start()

    def __enter__(self) -> _Session:
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
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error

    def wait_for(self, wanted: str, progress: Progress = silent) -> dict[str, Any]:
        """Follow the agent's events up to the wanted one."""
        while True:
            progress(self._doing, self.done, 1.0)
            event = self._next_event()
            name = event["event"]
            if name == "error":
                raise self._refusal(event)
            if name == "file" and event["name"] in _RESULTS:
                (self._folder / event["name"]).write_bytes(base64.b64decode(event["base64"]))
            if name == "loaded":
                self._doing = "warming up"
            if name == "warm":
                self._doing = "measuring"
                # By this machine's clock, which a meter's log can be held against; a board's may be off.
                self._timed_at = time.time()
            if name == "block" and self._job is not None:
                self.enough = event["enough"]
                time_done = event["seconds"] / self._job.min_time_s if self._job.min_time_s else 1.0
                runs_done = event["runs"] / self._job.min_runs if self._job.min_runs else 1.0
                self.done = 1.0 if self.enough else min(time_done, runs_done)
            if name == wanted:
                return event

    def measurement(self) -> Measurement:
        """What the finished agent measured."""
        assert self._job is not None
        return read_result(
            self._job,
            self._folder,
            device=self._device.name,
            started_at=self._started_at,
            timed_at=self._timed_at,
        )

    def _read_lines(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _next_event(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._timeout_s)
        except queue.Empty:
            raise DeviceError(
                f"{self._about()} has reported nothing for {self._timeout_s:g} s while {self._doing}"
            ) from None
        if line is None:
            raise self._death()
        try:
            event = json.loads(line)
            named = {"event": event["event"], **event}
        except (ValueError, TypeError, KeyError) as error:
            shown = line.decode(errors="replace").strip()[:80]
            hint = "what the shell there starts with, such as ~/.bashrc, must print nothing"
            raise DeviceError(
                f"{self._about()} reported '{shown}', which is no event", hint=None if self._heard else hint
            ) from error
        self._heard = True
        return named

    def _about(self) -> str:
        return self._device.name if self._job is None else f"{self._job.runtime} with {self._job.model.name}"

    def _refusal(self, event: dict[str, Any]) -> EdgeCNNError:
        said = " ".join(event["message"].split())  # runtimes report in paragraphs, an error is one line
        if event["kind"] == "unavailable" and self._job is not None:
            return self._device.missing(self._job.runtime, said)
        if event["kind"] == "refused":
            return ConfigError(f"{self._device.name}: {said}", hint="leave --cores out, or name others")
        if self._job is not None and any(sign in said for sign in TOO_NEW):
            older = f"{self._job.runtime} on {self._device.name} is older than {self._job.model.name}: {said}"
            return DeviceError(older, hint=self._device.missing(self._job.runtime, said).hint)
        return DeviceError(f"{self._about()} failed while {self._doing}: {said}")

    def _death(self) -> EdgeCNNError:
        """Why the agent is gone without its closing line: its status, and the last it said."""
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return DeviceError(f"{self._about()} closed its output without a result while {self._doing}")
        said = (self._folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        if (refusal := self._device.refusal(status, said)) is not None:
            return refusal
        return DeviceError(f"{self._about()} {ending(status)} while {self._doing}: {last_line(said)}")


def ending(status: int) -> str:
    """How a process ended, in words, from its exit status or, below 0, its signal."""
    if 128 < status < 160:  # as shells and the receiver pass a signal on
        status = 128 - status
    if status >= 0:
        return f"exited with status {status} and no result"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
