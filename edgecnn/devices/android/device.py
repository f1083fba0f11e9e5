"""An Android phone by way of adb: Google's ``benchmark_model`` there, else Python: brought, or Termux's."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.devices.android import phone
from edgecnn.devices.android.benchmark_model import NAMES
from edgecnn.devices.android.client import PLACE, Shell, choose, find_adb, list_attached
from edgecnn.devices.android.linux import LinuxDevice
from edgecnn.devices.android.python import PhonePython
from edgecnn.devices.android.run import PhoneRun
from edgecnn.devices.android.termux import TOOL_HINT, TermuxDevice
from edgecnn.devices.device import Device, Probe
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError, EdgeCNNError, MissingDependency
from edgecnn.measurement import MIN_PAIRS, Comparison, Measurement, field_values
from edgecnn.progress import Progress, silent

# Often enough for a curve of a soak, rarely enough for its half second of work on the phone to matter little.
_STATE_EVERY_S = 10.0


class AdbDevice(Device):
    """``adb`` or ``adb:SERIAL``."""

    def __init__(self, serial: str | None = None, *, benchmark_binary: Path | None = None) -> None:
        """Name a phone; nothing is asked of it yet.

        Args:
            serial: as ``adb devices`` lists it; None for the only one there is.
            benchmark_binary: Google's ``benchmark_model`` for the phone; None to look for it there.

        Raises:
            ConfigError: text that is no serial number, or no such file.
            MissingDependency: there is no adb here.
        """
        if serial is not None and not re.fullmatch(r"[^\s-]\S*", serial):
            raise ConfigError(f"'{serial}' is no serial number", hint="adb:SERIAL, as adb devices lists them")
        if benchmark_binary is not None and not benchmark_binary.is_file():
            raise ConfigError(f"there is no file {benchmark_binary}", hint=TOOL_HINT)
        self.name = "adb" if serial is None else f"adb:{serial}"
        self._serial, self._binary = serial, benchmark_binary
        self._program = find_adb()

    def measure(self, job: Job, *, progress: Progress = silent) -> Measurement:
        """Time one model. What runs there ends with the call, however that ends, and with this process.

        With ``benchmark_model`` a sample is the median of a block of runs, since it tells no single ones;
        with Python it is a run. The measurement's ``options`` say which, and hold the phone's state before
        and after.

        Raises:
            ConfigError, MissingDependency, DeviceError: as the base class says.
        """
        with self._shell() as shell, contextlib.ExitStack() as stack:
            facts = phone.read_facts(shell)
            tool = self._tool(shell, [job])
            if tool is None:
                python = self._python(shell, [job])
                states = [phone.read_state(shell)]
                measured = python.measure(job, progress=progress)
                states.append(phone.read_state(shell))
                return _with_state(measured, python, facts, states)
            run = stack.enter_context(_run(shell, facts, tool, job, "a"))
            run.compute_outputs(progress)
            run.warm_up(progress)
            states = [phone.read_state(shell)]
            while not run.enough:
                run.time_block()
                progress("measuring", run.done, 1.0)
                if time.time() - states[-1].at > _STATE_EVERY_S:
                    states.append(phone.read_state(shell))
            states.append(phone.read_state(shell))
            return run.measurement(facts, states)

    def compare(
        self, job_a: Job, job_b: Job, *, seed: int = 0, progress: Progress = silent
    ) -> tuple[Measurement, Measurement, Comparison]:
        """Time two models in turns, block by block, both in the same way.

        Raises:
            ConfigError, MissingDependency, DeviceError: as `measure` does.
        """
        generator = random.Random(seed)
        with self._shell() as shell, contextlib.ExitStack() as stack:
            facts = phone.read_facts(shell)
            tool = self._tool(shell, [job_a, job_b])
            if tool is None:
                python = self._python(shell, [job_a, job_b])
                states = [phone.read_state(shell)]
                a, b, comparison = python.compare(job_a, job_b, seed=seed, progress=progress)
                states.append(phone.read_state(shell))
                a, b = (_with_state(measured, python, facts, states) for measured in (a, b))
                return a, b, comparison
            runs = [
                stack.enter_context(_run(shell, facts, tool, job, folder))
                for folder, job in (("a", job_a), ("b", job_b))
            ]
            for run in runs:
                run.compute_outputs(progress)
                run.warm_up(progress)
            states = [phone.read_state(shell)]
            pairs = 0
            while pairs < MIN_PAIRS or not all(run.enough for run in runs):
                for run in generator.sample(runs, 2):
                    run.time_block()
                pairs += 1
                progress("measuring", min(*(run.done for run in runs), pairs / MIN_PAIRS), 1.0)
            states.append(phone.read_state(shell))
            a, b = (run.measurement(facts, states) for run in runs)
        return a, b, Comparison.between(a, b, seed=seed)

    def probe(self) -> Probe:
        """As the base class says."""
        with self._shell() as shell:
            facts, state = phone.read_facts(shell), phone.read_state(shell)
            tool = self._tool(shell, [])
            about = {**asdict(facts), **asdict(state), "cpu_count": len(facts.top_mhz) or None}
            runtimes: dict[str, str | None] = dict.fromkeys(RUNTIMES)
            notes: tuple[str, ...] = ()
            try:
                python = self._python(shell, []).probe()
            except EdgeCNNError as error:
                notes = (f"for onnxruntime: {error.hint or error}",)
                if tool is None:
                    notes += (f"for tflite: {TOOL_HINT}",)
            else:
                about = {**python.about, **about}
                runtimes |= python.runtimes
                notes = python.notes
            if tool is not None:
                runtimes["tflite"] = f"by {tool.rpartition('/')[2]}"
        return Probe(about, runtimes, notes)

    def setup(self, runtime: str, progress: Progress = silent) -> None:
        """Bring Python, with libraries of its own, and a runtime; experimental.

        Raises:
            ConfigError: an unknown runtime, or a phone whose processor is another than what there is.
            MissingDependency: they cannot be fetched here.
            DeviceError: the phone cannot be reached, has no room, or does not run what was brought.
        """
        with self._shell() as shell:
            linux = LinuxDevice(shell.adb, PLACE)
            linux.bring(shell, progress)
            linux.setup(runtime, progress)

    @contextlib.contextmanager
    def _shell(self) -> Iterator[Shell]:
        adb = choose(self._program, self._serial)
        self.name = adb.name
        with Shell(adb) as shell:
            yield shell

    def _tool(self, shell: Shell, jobs: list[Job]) -> str | None:
        """Path of ``benchmark_model`` on the phone, where there is one that can run all jobs."""
        if any(job.runtime != "tflite" for job in jobs):
            if self._binary is not None:
                raise ConfigError(
                    "benchmark_model runs models for tflite", hint="leave --benchmark-binary out"
                )
            return None
        if self._binary is not None:
            shell.adb.push([self._binary], shell.folder)
            path = f"{shell.folder}/{self._binary.name}"
            shell.run("chmod", "755", path)
            return path
        paths = [f"{PLACE}/{name}" for name in NAMES]
        return next((path for path in paths if shell.run("test", "-x", path)[0] == 0), None)

    def _python(self, shell: Shell, jobs: list[Job]) -> PhonePython:
        """Python there, for jobs that nothing else can run: what was brought, else Termux's.

        Raises:
            MissingDependency: it has none, or none that adb may enter.
        """
        linux = LinuxDevice(shell.adb, PLACE)
        if linux.is_there(shell):
            return linux
        termux = TermuxDevice(shell.adb)
        refusal = termux.closed(shell)
        if refusal is None:
            return termux
        if any(job.runtime == "tflite" for job in jobs):
            lacking = str(refusal).removeprefix(f"{self.name} has ")
            raise MissingDependency(
                f"{self.name} has no benchmark_model and {lacking}",
                hint=f"{TOOL_HINT}; experimental: edgecnn devices {self.name} --setup tflite",
            )
        raise refusal


def phones() -> list[str]:
    """The addresses of the phones that adb sees.

    Raises:
        MissingDependency: there is no adb here.
        DeviceError: adb cannot start its server.
    """
    return [f"adb:{one.serial}" for one in list_attached(find_adb())]


def _run(shell: Shell, facts: phone.Facts, tool: str, job: Job, folder: str) -> contextlib.closing[PhoneRun]:
    cores = None if job.cores is None else phone.cores_of(job.cores, facts)
    return contextlib.closing(PhoneRun(shell, tool, job, cores, folder))


def _with_state(
    measured: Measurement, python: PhonePython, facts: phone.Facts, states: list[phone.State]
) -> Measurement:
    """What Python measured, with what only adb's own user may read."""
    cores = list(facts.top_mhz) if measured.cores is None else list(measured.cores)
    state = field_values(phone.state_fields(states, measured.timed_at or states[0].at, cores))
    known: dict[str, Any] = {name: value for name, value in state.items() if getattr(measured, name) is None}
    return replace(
        measured,
        **known,
        cpu_model=facts.cpu_model or measured.cpu_model,
        os=facts.os or measured.os,
        options={**measured.options, "phone": phone.record(facts, states), "python": python.how},
    )
