"""The arm64 system that is emulated: a small Debian, and what Linux would say there of a core."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgecnn.count.kept import kept_folder
from edgecnn.count.process import last_words, run
from edgecnn.errors import ConfigError, MissingDependency, one_line
from edgecnn.fetch.published import FetchError, PublishedFile
from edgecnn.fetch.url import download_url
from edgecnn.fetch.wheels import Platform
from edgecnn.progress import Progress
from edgecnn.target import did_you_mean

# As many as the boards have; one of them computes.
_CORES = 4


@dataclass(frozen=True)
class System:
    """An arm64 system that nothing has been started of."""

    folder: Path
    """Where it lies, as it would below ``/``."""
    platform: Platform
    """Which wheels fit it."""

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.folder / "usr" / "bin" / f"python{self.platform.python}"


@dataclass(frozen=True)
class Cpu:
    """A core that can be emulated."""

    name: str
    """As QEMU calls it."""
    midr: int
    """Its main identification register."""
    features: str
    """What it can do, as Linux lists it."""


def open_cpu(name: str) -> Cpu:
    """The core of that name.

    Raises:
        ConfigError: none is called so.
    """
    known = _read_toml("cpus.toml")
    if name not in known:
        raise ConfigError(f"unknown core '{name}'", hint=did_you_mean(name, list(known)))
    return Cpu(name, **known[name])


def fetch_system(progress: Progress) -> System:
    """An arm64 system with Python, fetched first where it is not in the cache.

    Raises:
        MissingDependency: it cannot be fetched or unpacked.
        OutputError: the cache cannot be written.
    """
    known = _read_toml("system.toml")
    packages: list[dict[str, str]] = known["package"]
    digest = hashlib.sha256("".join(package["sha256"] for package in packages).encode()).hexdigest()

    def make(folder: Path, scratch: Path) -> None:
        unpacker = shutil.which("dpkg-deb")
        if unpacker is None:
            raise MissingDependency("dpkg-deb is not installed", hint="apt-get install dpkg")
        for done, package in enumerate(packages):
            progress("fetching the arm64 system", done, len(packages))
            archive = _download(package["path"], package["sha256"], known["mirrors"], scratch)
            log = scratch / "log"
            if run([unpacker, "-x", str(archive), str(folder)], log, lambda: None) != 0:
                raise MissingDependency(f"{archive.name} cannot be unpacked: {last_words(log)}")

    platform = Platform(known["python"], "aarch64", known["glibc_minor"])
    return System(kept_folder(f"system-{digest[:12]}", make), platform)


def lay_out(system: System, cpu: Cpu, root: Path) -> None:
    """Fill the folder in which the emulated program looks before it sees this machine's own files.

    It holds the system, and what Linux says of the core: runtimes that read there of an x86 processor choose
    the wrong kernels, or crash.
    """
    for name in ("etc", "lib", "usr"):
        (root / name).symlink_to(system.folder / name)
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text("\n".join(_cpuinfo(cpu, core) for core in range(_CORES)))
    cores = root / "sys" / "devices" / "system" / "cpu"
    for core in range(_CORES):
        registers = cores / f"cpu{core}" / "regs" / "identification"
        registers.mkdir(parents=True)
        (registers / "midr_el1").write_text(f"0x{cpu.midr:016x}\n")
    for name in ("possible", "present", "online"):
        (cores / name).write_text(f"0-{_CORES - 1}\n")


def _cpuinfo(cpu: Cpu, core: int) -> str:
    # The fields of MIDR_EL1: Arm Architecture Reference Manual, D19.2.
    fields = {
        "processor": core,
        "BogoMIPS": "108.00",
        "Features": cpu.features,
        "CPU implementer": f"0x{cpu.midr >> 24 & 0xFF:02x}",
        "CPU architecture": 8,
        "CPU variant": f"0x{cpu.midr >> 20 & 0xF:x}",
        "CPU part": f"0x{cpu.midr >> 4 & 0xFFF:03x}",
        "CPU revision": cpu.midr & 0xF,
    }
    return "".join(f"{name}\t: {value}\n" for name, value in fields.items())


def _download(path: str, sha256: str, mirrors: list[str], scratch: Path) -> Path:
    file = PublishedFile(path.rpartition("/")[2], sha256, None, ())
    reasons = []
    for mirror in mirrors:
        try:
            return download_url(file, f"{mirror}/{path}", scratch, scratch, lambda *_: None)
        except FetchError as error:
            reasons.append(f"{mirror}: {error}")
    said = one_line(f"{file.name} cannot be fetched: {'; '.join(reasons)}")
    raise MissingDependency(said, hint="check the network; it is fetched once, and kept in the cache")


@cache
def _read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((files("edgecnn.count") / name).read_text(encoding="utf-8"))
