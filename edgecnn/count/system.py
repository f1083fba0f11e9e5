"""The system that is emulated: a small Debian, and what Linux would say there of a core."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgecnn.count.kept import kept_folder
from edgecnn.count.process import last_words, run
from edgecnn.errors import ConfigError, MissingDependency
from edgecnn.fetch.packages import download_debian
from edgecnn.fetch.published import FetchError
from edgecnn.fetch.wheels import Platform
from edgecnn.progress import Progress
from edgecnn.target import did_you_mean

# As many as the boards have; one of them computes.
_CORES = 4
_MACHINES = {"arm64": "aarch64", "armhf": "armv7l"}
# What it takes to run Python and the runtimes.
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
# Names of the packages that a system consists of, in its own folder.
_LIST = "packages.txt"


@dataclass(frozen=True)
class System:
    """A Debian system for another machine that nothing has been started of."""

    folder: Path
    """Where it lies, as it would below ``/``."""
    machine: str
    """What its kernel would call the machine, such as ``aarch64``."""

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return next((self.folder / "usr" / "bin").glob("python3.*[0-9]"))

    @property
    def libc(self) -> str:
        """Version of its glibc: ``2.36-9+deb12u14``."""
        [package] = (line for line in self._packages() if line.startswith("libc6_"))
        return package.split("_")[1]

    @property
    def platform(self) -> Platform:
        """Which wheels fit it."""
        return Platform(
            self.interpreter.name.removeprefix("python"), self.machine, int(re.split(r"[.-]", self.libc)[1])
        )

    def _packages(self) -> list[str]:
        return (self.folder / _LIST).read_text(encoding="utf-8").splitlines()


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
    known = _cpus()
    if name not in known:
        raise ConfigError(f"unknown core '{name}'", hint=did_you_mean(name, list(known)))
    return Cpu(name, **known[name])


def fetch_system(
    progress: Progress, architecture: str = "arm64", packages: tuple[str, ...] = _PACKAGES
) -> System:
    """A system with Python, of the release that runs here, fetched first where it is not in the cache.

    Args:
        progress: told how far it is.
        architecture: one of ``arm64`` and ``armhf``, as Debian calls them.
        packages: of which it consists, with all that they depend on.

    Raises:
        MissingDependency: it cannot be fetched or unpacked.
        OutputError: the cache cannot be written.
    """
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()

    def make(folder: Path, scratch: Path) -> None:
        unpacker = shutil.which("dpkg-deb")
        if unpacker is None:
            raise MissingDependency("dpkg-deb is not installed", hint="apt-get install dpkg")
        try:
            archives = download_debian(
                packages, architecture, scratch, f"fetching an {architecture} system", progress
            )
        except FetchError as error:
            raise MissingDependency(
                f"a Debian system for {architecture} cannot be fetched: {error}",
                hint="check the network, and that apt's sources have that architecture, as Debian's do; it "
                "is fetched once, and kept in the cache",
            ) from error
        for archive in archives:
            log = scratch / "log"
            if run([unpacker, "-x", str(archive), str(folder)], log, lambda: None) != 0:
                raise MissingDependency(f"{archive.name} cannot be unpacked: {last_words(log)}")
        if not (folder / "lib").exists():  # as from Debian 13 on
            (folder / "lib").symlink_to("usr/lib")
        names = "".join(f"{archive.name}\n" for archive in archives)
        (folder / _LIST).write_text(names, encoding="utf-8")

    name = f"system-{architecture}-{_release()}-{digest[:8]}"
    return System(kept_folder(name, make), _MACHINES[architecture])


def _release() -> str:
    """The release of the system that runs here, whose packages apt has: ``debian-12``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return f"{release['ID']}-{release.get('VERSION_ID', 'unstable')}"


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


@cache
def _cpus() -> dict[str, Any]:
    return tomllib.loads((files("edgecnn.count") / "cpus.toml").read_text(encoding="utf-8"))
