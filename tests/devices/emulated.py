"""Boards with an Arm processor: a real sshd, and behind it an emulated Debian as their only Python."""

from __future__ import annotations

import shlex
import shutil

import pytest

from edgecnn.count.cores import Cpu, lay_out, open_cpu
from edgecnn.errors import MissingDependency
from edgecnn.fetch.debian import PYTHON, System, fetch_system
from edgecnn.progress import silent
from tests.devices.sshd import Board

# A Raspberry Pi with a system of 32 bits, for which there are no wheels of numpy.
_A72_32_BITS = Cpu(
    "max", 0x410F_D083, "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae crc32"
)


def emulate(board: Board, architecture: str) -> System:
    """Make Python on a board that of a Raspberry Pi with this architecture: ``arm64`` or ``armhf``.

    Processes that it starts are emulated too: it knows its own program by the path of the script that
    starts the emulator.
    """
    if architecture == "arm64":
        program, core, packages = "qemu-aarch64", open_cpu("cortex-a72"), PYTHON
    else:
        program, core, packages = "qemu-arm", _A72_32_BITS, (*PYTHON, "python3-numpy")
    emulator = shutil.which(program)
    if emulator is None:
        pytest.skip(f"needs {program}")
    try:
        system = fetch_system(silent, architecture, packages)
    except MissingDependency as error:
        pytest.skip(str(error))
    root = board.folder / "root"
    root.mkdir()
    lay_out(system, core, root)
    command = [emulator, "-cpu", core.name, "-L", root]
    command += ["-E", f"LD_LIBRARY_PATH={_libraries(system)}"]
    # Python looks for its library beside the folder of its own program. Not below the emulator's: system
    # calls that it does not translate would look here.
    (board.folder / "lib").symlink_to(system.folder / "usr" / "lib")
    line = " ".join(shlex.quote(str(word)) for word in command)
    board.python3(f'exec {line} -0 "$0" {shlex.quote(str(system.interpreter))} "$@"')
    return system


def _libraries(system: System) -> str:
    """Where libraries lie that a running Debian finds by links, which packages make as they are installed."""
    places = {path.parent for path in (system.folder / "usr" / "lib").glob("*/*/lib*.so.3")}
    return ":".join(sorted(map(str, places)))
