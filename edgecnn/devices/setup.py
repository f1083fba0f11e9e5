"""Bring numpy and a runtime to a board that needs neither pip nor an internet connection.

The wheels are fetched and unpacked here for the Python and the processor of the board, which needs no
emulation, since unpacking runs nothing. They go over in one archive.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.devices.remote import PACKAGES, RemoteDevice, archive, python
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, last_line, one_line
from edgecnn.fetch.published import FetchError
from edgecnn.fetch.wheels import NoWheels, Platform, unpack_wheels
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch
from edgecnn.target import did_you_mean

_ASK_S = 60.0
# Slow cards take a minute to write what has already arrived.
_UNPACK_S = 300.0

# The last release, and the only one with wheels for 32-bit ARM (for Python 3.11); built against numpy 1.
_TFLITE_RUNTIME = "tflite-runtime==2.14.0"

# A 64-bit kernel under a 32-bit system, as Raspberry Pi OS has it, calls the machine by the kernel's name.
_MACHINE_OF_32_BITS = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}

_QUESTION = """
import importlib.metadata, json, os, platform, site, struct, sys
site.addsitedir(site.getusersitepackages())
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (AttributeError, OSError, ValueError):
    libc = None
try:
    numpy = importlib.metadata.version("numpy")
except importlib.metadata.PackageNotFoundError:
    numpy = None
print(json.dumps({
    "implementation": platform.python_implementation(),
    "python": "%d.%d" % sys.version_info[:2],
    "machine": platform.machine(),
    "bits": struct.calcsize("P") * 8,
    "libc": libc,
    "numpy": numpy,
}))
"""

_TRIAL = """
import importlib, os, site, sys
site.addsitedir(site.getusersitepackages())
sys.path.insert(0, os.path.expanduser({folder!r}))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules["openvino_telemetry"] = None
import numpy
reasons = []
for name in {modules!r}:
    try:
        importlib.import_module(name)
        sys.exit()
    except ImportError as error:
        reasons.append(str(error))
sys.exit("; ".join(reasons))
"""


@dataclass(frozen=True)
class Board:
    """What decides which wheels fit."""

    platform: Platform
    """Python, machine and glibc."""
    numpy: str | None
    """Version of the system's own, None where there is none."""

    def __str__(self) -> str:
        return str(self.platform)


def setup(device: RemoteDevice, runtime: str, progress: Progress = silent) -> None:
    """Put numpy and a runtime into ``~/.cache/edgecnn/packages/RUNTIME`` there, whole or not at all; what is
    there already is replaced, the other runtimes stay. Where no numpy fits, the system's own serves.

    Raises:
        ConfigError: an unknown runtime.
        MissingDependency: there is no pip here.
        DeviceError: the board cannot be reached, no wheels fit it, its disk is full, or what was brought
            cannot be imported there.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"unknown runtime '{runtime}'", hint=did_you_mean(runtime, sorted(RUNTIMES)))
    progress(f"asking {device.name}", 0, None)
    board = _board(device)
    with scratch("setup") as folder:
        progress(f"fetching {runtime} for {board}", 0, None)
        files = _fetch(runtime, board, Path(folder))
        progress("packing", 0, None)
        _send(device, f"{PACKAGES}/{runtime}", files, progress)
    progress("trying", 0, None)
    trial = _TRIAL.format(folder=f"{PACKAGES}/{runtime}", modules=RUNTIMES[runtime].modules)
    _run(device, trial, f"{runtime} is there now, but cannot be imported")


def _run(device: RemoteDevice, program: str, failed: str) -> str:
    """What a program prints there.

    Raises:
        DeviceError: it cannot be started, or exits with an error, which ``failed`` introduces.
    """
    try:
        reply = subprocess.run(
            device.command(python(program)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_S,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{device.name} has not answered for {_ASK_S:g} s") from error
    if reply.returncode:
        refusal = device.refusal(reply.returncode, reply.stderr)
        why = one_line(last_line(reply.stderr))
        raise refusal or DeviceError(f"{device.name}: {failed}: {why}")
    return reply.stdout


def _board(device: RemoteDevice) -> Board:
    said = _run(device, _QUESTION, "its Python fails")
    try:
        # The last line: start-up files of shells may have printed others.
        answer = json.loads(said.strip().split("\n")[-1])
    except ValueError as error:
        raise DeviceError(f"{device.name} answered '{one_line(said, 80)}'") from error
    glibc = re.fullmatch(r"glibc 2\.(\d+)", answer["libc"] or "")
    if answer["implementation"] != "CPython" or glibc is None:
        raise DeviceError(
            f"{device.name} has {answer['implementation']} and {answer['libc'] or 'no glibc'}",
            hint="the wheels of the runtimes need CPython and glibc: install the runtime there by hand",
        )
    machine = answer["machine"]
    if answer["bits"] == 32:
        machine = _MACHINE_OF_32_BITS.get(machine, machine)
    return Board(Platform(answer["python"], machine, int(glibc.group(1))), answer["numpy"])


def _fetch(runtime: str, board: Board, folder: Path) -> dict[str, Path]:
    """The files of the first choice that pip finds wheels of, by their paths in the folder."""
    packages = {"tflite": "ai-edge-litert"}.get(runtime, runtime)
    choices = [["numpy", packages]]
    if runtime == "tflite":
        choices.append(["numpy<2", _TFLITE_RUNTIME])
        if board.numpy is not None and board.numpy.startswith("1."):
            choices.append(["--no-deps", _TFLITE_RUNTIME])
    for number, choice in enumerate(choices):
        unpacked = folder / str(number)
        if _install(choice, board, unpacked):
            return {
                path.relative_to(unpacked).as_posix(): path
                for path in sorted(unpacked.rglob("*"))
                # Scripts, for the Python here.
                if path.is_file() and path.relative_to(unpacked).parts[0] != "bin"
            }
    names = " or ".join(dict.fromkeys(re.split("[=<]", choice[-1])[0] for choice in choices))
    hint = "a 64-bit system with another Python may have them; or install the runtime there by hand"
    if runtime == "tflite" and board.platform.machine == "armv7l" and board.numpy is None:
        hint = "with the system's numpy there may be some: sudo apt-get install python3-numpy there"
    raise DeviceError(f"there are no wheels of numpy and {names} for {board}", hint=hint)


def _install(wanted: list[str], board: Board, folder: Path) -> bool:
    """Let pip unpack wheels for that board here; False where none fit."""
    try:
        unpack_wheels(wanted, board.platform, folder)
    except NoWheels:
        return False
    except FetchError as error:
        raise DeviceError(
            f"pip cannot fetch {wanted[-1]}: {error}",
            hint="setup needs the package index here, not on the board; PIP_INDEX_URL names a mirror",
        ) from error
    return True


def _send(device: RemoteDevice, place: str, files: dict[str, Path], progress: Progress) -> None:
    with tempfile.TemporaryFile() as errors, archive(files) as packed:
        process = device.send({"install": place}, packed, errors, progress)
        slow = threading.Timer(_UNPACK_S, process.kill)
        slow.start()
        try:
            assert process.stdout
            progress("unpacking there", 0, None)
            last = b""
            for line in process.stdout:
                last = line
            status = process.wait()
        finally:
            slow.cancel()
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if (error := _failure(device, last, status, said)) is not None:
        raise error


def _failure(device: RemoteDevice, last: bytes, status: int, said: str) -> EdgeCNNError | None:
    """What went wrong, from the receiver's last event, its status and its words; None where all is well."""
    try:
        event: dict[str, Any] = json.loads(last)
    except ValueError:
        event = {"event": None}
    if event["event"] == "result":
        return None
    if event["event"] == "error":
        full = "No space left" in event["message"]
        hint = f"make room in {PACKAGES} there, or remove it; nothing was changed" if full else None
        return DeviceError(f"{device.name}: {one_line(event['message'])}", hint=hint)
    if (refusal := device.refusal(status, said)) is not None:
        return refusal
    reason = (said.strip() or "no message").split("\n")[-1]
    return DeviceError(f"{device.name} has not taken the packages (status {status}): {one_line(reason)}")
