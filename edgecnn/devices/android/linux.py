"""Experimental: Python on a phone with the libraries of a small Debian, where nothing there runs the model.

Android has another C library than wheels are built for. But its kernel is Linux, and a program that brings
its own loader and libraries needs nothing else of the system: no root, no app, one folder.
"""

from __future__ import annotations

import shlex
import tarfile
from pathlib import Path

from edgecnn.devices.android.client import Adb, Shell
from edgecnn.devices.android.python import PhonePython
from edgecnn.errors import ConfigError, DeviceError, one_line
from edgecnn.fetch.debian import System, fetch_system
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch

FOLDER = "edgecnn-linux"
"""Holds the system and what ``--setup`` brought, beside the folders of sessions; it can be removed at any
time."""

_SHELL = "/system/bin/sh"
# What of the system is not needed to run Python; its own script takes the place of the one named python3.
_LEFT_OUT = ("usr/share", "usr/sbin", "sbin", "bin", "var", "etc", "usr/bin/python3")
_UNPACK_S = 300.0
# Slow phones take minutes to read so many files for the first time.
_TRY_S = 120.0


class LinuxDevice(PhonePython):
    """Python in a folder of the phone's shell user, once `bring` has put it there."""

    how = "with its own libraries, experimental"

    def __init__(self, adb: Adb, place: str) -> None:
        """Name the phone, and the folder that its shell user may keep programs in."""
        super().__init__(adb)
        self._place, self._folder = place, f"{place}/{FOLDER}"

    def line(self, remote: str) -> str:
        """As the base class says."""
        environment = {"HOME": self._folder, "TMPDIR": self._folder, "PATH": f"{self._folder}/usr/bin:$PATH"}
        variables = " ".join(f'{name}="{value}"' for name, value in environment.items())
        return f"{variables} sh -c {shlex.quote(remote)}"

    def is_there(self, shell: Shell) -> bool:
        """Whether it was brought."""
        return shell.run("test", "-x", f"{self._folder}/usr/bin/python3")[0] == 0

    def bring(self, shell: Shell, progress: Progress = silent) -> None:
        """Put the system there, whole or not at all, where it is not yet; it takes some 60 MB.

        Raises:
            ConfigError: a phone whose processor is another.
            MissingDependency: the system cannot be fetched here.
            DeviceError: no space left, or the phone is gone.
        """
        if self.is_there(shell):
            return
        machine = shell.run("uname", "-m")[1]
        if machine != "aarch64":
            raise ConfigError(
                f"{self.name} is {one_line(machine)}, and what could be brought there is for aarch64",
                hint="give Google's benchmark_model with --benchmark-binary FILE",
            )
        system = fetch_system(progress)
        with scratch("phone") as work:
            packed = Path(work) / "system.tar.gz"
            progress("packing", 0, None)
            _pack(system, self._folder, packed)
            progress(f"sending {packed.stat().st_size / 1e6:.0f} MB to {self.name}", 0, None)
            self._adb.push([packed], shell.folder)
        progress("unpacking there", 0, None)
        # Renamed when it is complete: what was cut off is in the folder that goes with the shell.
        half = f"{shell.folder}/linux"
        unpack = f"mkdir {half} && tar -xzf {shell.folder}/{packed.name} -C {half} && rm -rf {self._folder} "
        unpack += f"&& mv {half} {self._folder}"
        status, said = shell.run("sh", "-c", unpack, timeout_s=_UNPACK_S)
        if status == 0:
            trial = f"{self._folder}/usr/bin/python3"
            status, said = shell.run(trial, "-I", "-c", "import json, tarfile, threading", timeout_s=_TRY_S)
        if status:
            shell.run("rm", "-rf", self._folder, timeout_s=_UNPACK_S)
            room = f"free 100 MB under {self._place}" if "space" in said.lower() else None
            raise DeviceError(
                f"{self.name} does not run what was brought: {one_line(said) or f'status {status}'}",
                hint=room or "measure with Google's benchmark_model there: --benchmark-binary FILE",
            )


def _pack(system: System, folder: str, file: Path) -> None:
    """The system as it will lie in its folder, with a ``python3`` that starts its Python by its loader."""

    def needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        inside = member.name.removeprefix("./")
        return None if any(inside == out or inside.startswith(f"{out}/") for out in _LEFT_OUT) else member

    starter = file.with_name("python3")
    places = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
    libraries = ":".join(f"{folder}/{place}" for place in places)
    # The loader's --argv0 lets Python know itself by this script, which its child processes start again.
    starter.write_text(
        f"#!{_SHELL}\n"
        f'exec {folder}/lib/ld-linux-aarch64.so.1 --argv0 "$0" --library-path {libraries} '
        f'{folder}/usr/bin/{system.interpreter.name} "$@"\n'
    )
    starter.chmod(0o755)
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(system.folder, ".", filter=needed)
        tar.add(starter, "./usr/bin/python3")
