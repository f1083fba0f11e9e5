"""The cores that are emulated, and what Linux would say of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgecnn.errors import ConfigError
from edgecnn.fetch.debian import System
from edgecnn.target import did_you_mean

# As many as the boards have; one of them computes.
_CORES = 4


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
