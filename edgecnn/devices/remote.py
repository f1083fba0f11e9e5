"""Devices at the other end of a command that carries standard input and output, such as ssh."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import subprocess
import tarfile
import threading
from abc import abstractmethod
from pathlib import Path
from typing import IO

import edgecnn.agent
from edgecnn.devices.agent_device import THREAD_VARIABLES, AgentDevice
from edgecnn.errors import MissingDependency
from edgecnn.progress import Progress

PACKAGES = "~/.cache/edgecnn/packages"
"""The folder on a device where ``--setup`` puts numpy and a runtime."""

_AGENT = Path(edgecnn.agent.__file__).parent
_CHUNK_BYTES = 1 << 18


class RemoteDevice(AgentDevice):
    """A machine with a shell and Python 3.9 or later. Job, commands, events and results share one connection:
    nothing is there before it or stays behind it, and a connection that breaks ends what it had started."""

    @abstractmethod
    def command(self, remote: str) -> list[str]:
        """The command here that runs a line of POSIX shell there, with its input and output."""

    def start(
        self, folder: Path, threads: int, errors: IO[bytes], progress: Progress
    ) -> subprocess.Popen[bytes]:
        """As the base class says; the job travels while the caller waits for the first event."""
        process = subprocess.Popen(
            self.command(python(receiver())), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        archive = _archive(folder)
        env = {name: str(threads) for name in THREAD_VARIABLES}
        header = {"size": len(archive), "env": env, "packages": [PACKAGES]}
        sending = (json.dumps(header) + "\n").encode() + archive
        # In a thread, since a device that refuses the job says so before it has taken all of it.
        threading.Thread(target=_send, args=(process, sending, progress), daemon=True).start()
        return process

    def missing(self, runtime: str, said: str) -> MissingDependency:
        """As the base class says."""
        return MissingDependency(
            f"{runtime} cannot be imported on {self.name}: {said}",
            hint=f"edgecnn devices {self.name} --setup {runtime} brings it there, into a folder of its own",
        )


def python(program: str, interpreter: str = "python3") -> str:
    """A line of POSIX shell that runs a Python program that is given as text.

    It travels in base64: quoting differs between the shells on the way.
    """
    packed = base64.b64encode(program.encode()).decode()
    unpack = f"import base64; exec(compile(base64.b64decode('{packed}'), 'edgecnn', 'exec'))"
    return f"exec {interpreter} -u -c {shlex.quote(unpack)}"


def receiver() -> str:
    """The program that takes a job, without its documentation."""
    text = (_AGENT / "receive.py").read_text(encoding="utf-8")
    return re.sub(r'^""".*?"""\n', "", text, count=1, flags=re.DOTALL)


def _archive(folder: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for path in sorted(_AGENT.glob("*.py")):
            tar.add(path, f"agent/{path.name}")
        for path in sorted(folder.iterdir()):
            if path.name != "stderr.txt":
                tar.add(path, f"job/{path.name}")
    return held.getvalue()


def _send(process: subprocess.Popen[bytes], data: bytes, progress: Progress) -> None:
    """Write all, without a word where the other end is gone: its exit status says why."""
    assert process.stdin
    try:
        for start in range(0, len(data), _CHUNK_BYTES):
            process.stdin.write(data[start : start + _CHUNK_BYTES])
            process.stdin.flush()
    except (OSError, ValueError):
        return
