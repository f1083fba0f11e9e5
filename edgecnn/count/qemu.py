"""QEMU's user-mode emulation of arm64, and the plug-in that counts in it."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgecnn.count.process import last_words, run
from edgecnn.errors import MissingDependency
from edgecnn.fetch.kept import kept_folder
from edgecnn.progress import Progress

_PROGRAM = "qemu-aarch64"
_TIMEOUT_S = 60
_COMPILER = "apt-get install gcc libc6-dev"
_DYNAMIC = "Debian 12 and Ubuntu 24.04 have one that can: apt-get install qemu-user"
# QEMU 9 refuses plug-ins made for interfaces before its own second version, earlier ones know only the first.
_SECOND_INTERFACE = 9


@dataclass(frozen=True)
class Qemu:
    """An emulator that can load plug-ins."""

    path: str
    """The program."""
    version: str
    """What it says of itself: ``7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)``."""

    @property
    def interface(self) -> int:
        """Version of the plug-in interface to use."""
        major = re.match(r"\d+", self.version)
        return 2 if major and int(major[0]) >= _SECOND_INTERFACE else 1


def find_qemu() -> Qemu:
    """The emulator that is installed.

    Raises:
        MissingDependency: there is none, or one that cannot load plug-ins.
    """
    path = shutil.which(_PROGRAM)
    if path is None:
        raise MissingDependency(
            f"{_PROGRAM} is not installed, which emulates Arm cores on Linux",
            hint="apt-get install qemu-user",
        )
    said = [_ask(path, option) for option in ("-version", "-help")]
    version = re.search(r"version (.+)", said[0])
    # One that is linked statically, as Debian has it from 13 on, can load nothing.
    if version is None or "-plugin" not in said[1]:
        name = f"{path} {version[1]}" if version else path
        raise MissingDependency(f"{name} cannot load plug-ins, which it takes to count", hint=_DYNAMIC)
    return Qemu(path, version[1].strip())


def build_plugin(qemu: Qemu, progress: Progress) -> Path:
    """The plug-in for this emulator, compiled first where that has not been done.

    Raises:
        MissingDependency: there is no C compiler that can.
        OutputError: the cache cannot be written.
    """
    source = files("edgecnn.count") / "plugin.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    name = f"plugin-{digest}-interface{qemu.interface}-{platform.machine()}"

    def make(folder: Path, scratch: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise MissingDependency(
                "there is no C compiler, which it takes to build the counting plug-in", hint=_COMPILER
            )
        copied, log = scratch / "plugin.c", scratch / "log"
        copied.write_bytes(source.read_bytes())
        command = [compiler, "-std=gnu11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
        command += [f"-DAPI_VERSION={qemu.interface}", "-o", str(folder / "plugin.so"), str(copied)]
        if run(command, log, lambda: progress("building the plug-in", 0, None)) != 0:
            raise MissingDependency(
                f"{compiler} cannot build the counting plug-in: {last_words(log)}", hint=_COMPILER
            )

    return kept_folder(name, make) / "plugin.so"


def _ask(path: str, option: str) -> str:
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
