"""Devices at the other end of a command that carries standard input and output, such as ssh."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shlex
import subprocess
import tarfile
import tempfile
import threading
import time
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import edgecnn.agent
from edgecnn.agent.runtimes import RUNTIMES
from edgecnn.devices.agent_device import THREAD_VARIABLES, AgentDevice
from edgecnn.errors import DeviceError, EdgeCNNError, MissingDependency
from edgecnn.progress import Progress, silent

PACKAGES = "~/.cache/edgecnn/packages"
"""The folder on a device that holds, in one of its name for each runtime, what ``--setup`` brought there."""

OLDEST_PYTHON = (3, 9)
"""On a device."""

# The device gives up a connection on which nothing has come for so long, though a byte is sent so often.
_SILENCE_S, _BEAT_S = 10.0, 2.0
# A device that takes not even one chunk of the job in this time will not take the rest of it.
_STUCK_S = 60.0
_CHUNK_BYTES = 1 << 18

_AGENT = Path(edgecnn.agent.__file__).parent
# A shell's status where there is no such command.
_NOT_FOUND = 127


class RemoteDevice(AgentDevice):
    """A machine with a shell and Python 3.9 or later. Job, commands, events and results share one connection:
    nothing is there before it or stays behind it, and a connection that breaks ends what it had started."""

    @abstractmethod
    def command(self, remote: str) -> list[str]:
        """The command here that runs a line of POSIX shell there, with its input and output."""

    def start(
        self, folder: Path, threads: int, errors: IO[bytes], progress: Progress
    ) -> subprocess.Popen[bytes]:
        """As the base class says; returns when the job has been sent."""
        asked = folder / "job.json"
        runtimes = [json.loads(asked.read_text())["runtime"]] if asked.exists() else sorted(RUNTIMES)
        header = {
            "env": {name: str(threads) for name in THREAD_VARIABLES},
            "packages": [f"{PACKAGES}/{runtime}" for runtime in runtimes],
        }
        files = {f"agent/{path.name}": path for path in sorted(_AGENT.glob("*.py"))}
        # stderr.txt is what the process says here.
        files |= {f"job/{path.name}": path for path in sorted(folder.iterdir()) if path.name != "stderr.txt"}
        with archive(files) as packed:
            return self.send(header, packed, errors, progress)

    def send(
        self, header: dict[str, Any], packed: IO[bytes], errors: IO[bytes], progress: Progress
    ) -> subprocess.Popen[bytes]:
        """Start ``agent/receive.py`` there, and hand an archive over to it.

        Args:
            header: what the receiver shall do with it.
            packed: the archive, read from its beginning.
            errors: takes what the command says on standard error.
            progress: told how many of the archive's bytes have gone.

        Returns:
            The command, which gives the receiver's events and takes the agent's commands; it may have ended
            already.

        Raises:
            DeviceError: the device takes no more of it.
        """
        size = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        told = {"size": size, "silence_s": _SILENCE_S, **header}
        process = subprocess.Popen(
            self.command(python(_receiver())), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            sender = _Sender(process, (json.dumps(told) + "\n").encode(), packed)
            sender.start()
            before, since = 0, time.monotonic()
            while not sender.through.wait(0.2):
                progress("sending", sender.sent, size)
                if sender.sent != before:
                    before, since = sender.sent, time.monotonic()
                elif time.monotonic() - since > _STUCK_S:
                    raise DeviceError(f"{self.name} has taken nothing for {_STUCK_S:g} s")
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def setup(self, runtime: str, progress: Progress = silent) -> None:
        """Bring numpy and a runtime there; see `edgecnn.devices.setup`.

        Raises:
            ConfigError, MissingDependency, DeviceError: as `edgecnn.devices.setup.setup` says.
        """
        from edgecnn.devices.setup import setup  # it imports this module

        setup(self, runtime, progress)

    def missing(self, runtime: str, said: str) -> MissingDependency:
        """As the base class says."""
        return MissingDependency(
            f"{runtime} cannot be imported on {self.name}: {said}",
            hint=f"edgecnn devices {self.name} --setup {runtime} brings it there, into a folder of its own",
        )

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """As the base class says: a machine without Python, or with an old one."""
        needed = ".".join(str(number) for number in OLDEST_PYTHON)
        if status == _NOT_FOUND or "python3: command not found" in said.lower():
            return DeviceError(
                f"{self.name} has no python3",
                hint=f"install Python {needed} or later there: sudo apt-get install python3",
            )
        if old := re.search(r"^edgecnn needs another Python than (\S+)$", said, re.MULTILINE):
            return DeviceError(
                f"{self.name} has Python {old.group(1)}",
                hint=f"install Python {needed} or later there as python3",
            )
        return None


class _Sender(threading.Thread):
    """Writes a header and an archive to a process, and then a byte now and then that says: still here.

    In a thread, since a device that does not take it would hold the caller, and one that refuses the job says
    so before it has taken all of it. An end of the process ends the thread; its exit status says why.
    """

    def __init__(self, process: subprocess.Popen[bytes], header: bytes, packed: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.through = threading.Event()
        self._process, self._header, self._packed = process, header, packed

    def run(self) -> None:
        """Write until the process is gone."""
        try:
            with contextlib.suppress(OSError, ValueError):  # gone; or closed here, after its end
                self._write(self._header)
                while chunk := self._packed.read(_CHUNK_BYTES):
                    self._write(chunk)
                    self.sent += len(chunk)
                self.through.set()
                while True:
                    time.sleep(_BEAT_S)
                    self._write(b"\0")
        finally:
            self.through.set()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()


def python(program: str, interpreter: str = "python3") -> str:
    """A line of POSIX shell that runs a Python program that is given as text.

    It travels compressed, since some servers for small boards take lines of a few thousand characters only,
    and in base64, since quoting differs between the shells on the way. The interpreter is isolated (``-I``):
    a json.py in the user's home folder is not taken for the library's.
    """
    packed = base64.b64encode(zlib.compress(program.encode(), 9)).decode()
    unpack = (
        f"import sys, base64, zlib; sys.version_info >= {OLDEST_PYTHON} or "
        'sys.exit("edgecnn needs another Python than " + sys.version.split()[0]); '
        f'exec(compile(zlib.decompress(base64.b64decode("{packed}")), "edgecnn", "exec"))'
    )
    return f"exec {interpreter} -I -c {shlex.quote(unpack)}"


@contextlib.contextmanager
def archive(files: dict[str, Path]) -> Iterator[IO[bytes]]:
    """A tar.gz of files by their names in it: their contents alone, no owners, modes or times."""
    # At level 1, which is faster than a board's network.
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            for name, path in files.items():
                member = tarfile.TarInfo(name)
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(member, content)
        yield packed


def _receiver() -> str:
    """The program that takes a job, without its documentation."""
    text = (_AGENT / "receive.py").read_text(encoding="utf-8")
    return re.sub(r'^""".*?"""\n', "", text, count=1, flags=re.DOTALL)
