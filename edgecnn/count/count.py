"""Guest instructions of one inference on an emulated Arm core."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import edgecnn.agent
from edgecnn.artifact import Artifact
from edgecnn.bundle.write import read
from edgecnn.count.cores import lay_out, open_cpu
from edgecnn.count.guest import EMPTY_RUNS
from edgecnn.count.process import last_words, run
from edgecnn.count.qemu import build_plugin, find_qemu
from edgecnn.count.wheels import fetch_runtime
from edgecnn.devices.agent_device import THREAD_VARIABLES, ending
from edgecnn.errors import DeviceError, one_line
from edgecnn.fetch.debian import System, fetch_system
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch

# Odd, so that the median is one of them.
_RUNS = 5
# An inference of 10 billion instructions takes a minute or two on a slow machine.
_SILENT_S = 1800.0


@dataclass(frozen=True)
class Count:
    """Instructions that a bundle's inference takes on one thread of a core, and what computed it."""

    variant: str
    """The network: ``mobilenet_v2-1.0-224``."""
    target: str
    """Name of the target it was compiled for."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    macs: int
    """Multiply-accumulates of one inference."""
    cpu: str
    """The core that was emulated: ``cortex-a72``."""
    runs: tuple[int, ...]
    """Instructions of each inference after the first, in their order."""
    runtime: str
    """The runtime's package and version."""
    python: str
    """Version of the Python that called it."""
    libc: str
    """Version of the C library below it."""
    qemu: str
    """Version of the emulator."""

    @property
    def instructions(self) -> int:
        """Of one inference: the median of the runs."""
        return int(statistics.median(self.runs))

    @property
    def spread(self) -> float:
        """Distance of the highest from the lowest run, as a share of the median."""
        return (max(self.runs) - min(self.runs)) / self.instructions

    @property
    def instructions_per_mac(self) -> float | None:
        """None for a network without multiply-accumulates."""
        return self.instructions / self.macs if self.macs else None


def count(bundle: str | Path, cpu: str, progress: Progress = silent) -> Count:
    """Count the instructions of an inference, one thread, on an Arm core that QEMU emulates.

    What it takes beyond QEMU and a C compiler is fetched or built at the first use and kept in the cache.

    Args:
        bundle: the folder.
        cpu: the core: ``cortex-a72`` or ``cortex-a76``.
        progress: told how far it is.

    Raises:
        ConfigError: not a bundle, one whose files have changed, or an unknown core.
        MissingDependency: QEMU, a C compiler, the runtime or the arm64 system is lacking.
        DeviceError: the runtime refuses the model or crashes on it, or has been silent for half an hour.
        OutputError: the cache cannot be written.
    """
    artifact = read(Path(bundle))
    core = open_cpu(cpu)
    qemu = find_qemu()
    plugin = build_plugin(qemu, progress)
    system = fetch_system(progress)
    packages, runtime = fetch_runtime(artifact.runtime, system, progress)
    with scratch("count") as work_dir:
        work = Path(work_dir)
        root = work / "root"
        root.mkdir()
        lay_out(system, core, root)
        _lay_out_program(work)
        command = [qemu.path, "-cpu", core.name, "-L", str(root)]
        # QEMU splits the plug-in's options at commas, and takes two for one.
        command += ["-plugin", f"file={str(plugin).replace(',', ',,')},out=counts"]
        command += [str(system.interpreter), "-S", "-m", "edgecnn.count.guest", artifact.runtime]
        command += [str(artifact.model.resolve()), json.dumps(artifact.options), str(packages), str(_RUNS)]
        watch = _watch(artifact, work / "counts", progress)
        status = run(command, work / "log", watch, cwd=work, env=_environment(system, work))
        counts, versions = _results(artifact, core.name, work, status)
    return Count(
        variant=artifact.variant,
        target=artifact.target,
        precision=artifact.precision,
        macs=artifact.macs,
        cpu=core.name,
        runs=_inferences(counts),
        runtime=runtime,
        python=versions["python"],
        libc=system.libc,
        qemu=qemu.version,
    )


def _lay_out_program(work: Path) -> None:
    """The guest's program and the agent, without the package around them and all that it imports."""
    for folder in (Path(edgecnn.agent.__file__).parent, Path(__file__).parent):
        shutil.copytree(folder, work / "edgecnn" / folder.name, ignore=shutil.ignore_patterns("__pycache__"))


def _environment(system: System, work: Path) -> dict[str, str]:
    """Nothing of our own: what the guest does shall depend on it nowhere."""
    return {
        "HOME": str(work),
        "TMPDIR": str(work),
        "PYTHONHOME": str(system.folder / "usr"),
        "PYTHONHASHSEED": "0",
        "ONEDNN_JIT_PROFILE": "0",  # or OpenVINO leaves a list of its kernels in /tmp
        **{name: "1" for name in THREAD_VARIABLES},
    }


def _watch(artifact: Artifact, counts: Path, progress: Progress) -> Callable[[], None]:
    """What is done while the guest runs: tell how far it is, and give up one that hangs."""
    heard, heard_at = 0, time.monotonic()

    def watch() -> None:
        nonlocal heard, heard_at
        size = counts.stat().st_size if counts.exists() else 0
        if size != heard:
            heard, heard_at = size, time.monotonic()
        if time.monotonic() - heard_at > _SILENT_S:
            raise DeviceError(
                f"{artifact.runtime} with {artifact.model.name} has reported nothing for {_SILENT_S:g} s"
            )
        lines = counts.read_bytes().count(b"\n") if size else 0
        inferences = max(lines // 2 - EMPTY_RUNS, 0)
        progress("counting" if lines else "loading", inferences, 1 + _RUNS)

    return watch


def _results(artifact: Artifact, cpu: str, work: Path, status: int) -> tuple[list[int], dict[str, str]]:
    """The counts at the markers, and the guest's versions."""
    about = f"{artifact.runtime} with {artifact.model.name} on an emulated {cpu}"
    try:
        said: dict[str, str] = json.loads((work / "guest.json").read_text(encoding="utf-8"))
        counts = [int(line) for line in (work / "counts").read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        raise DeviceError(f"{about} {ending(status)}: {last_words(work / 'log')}") from None
    if "error" in said:
        raise DeviceError(f"{about} failed: {one_line(said['error'])}")
    if len(counts) != 2 * (EMPTY_RUNS + 1 + _RUNS):
        raise DeviceError(f"{about} left {len(counts)} counts, which is not one for each marker")
    return counts, said


def _inferences(counts: list[int]) -> tuple[int, ...]:
    """Instructions of each inference but the first, without the markers' own."""
    spans = [end - start for start, end in zip(counts[::2], counts[1::2], strict=True)]
    marker = int(statistics.median(spans[:EMPTY_RUNS]))
    return tuple(span - marker for span in spans[EMPTY_RUNS + 1 :])
