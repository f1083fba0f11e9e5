"""Takes a job from standard input on a device, runs the agent on it, and leaves nothing behind.

Given to the device's Python as text (``python3 -c``), since nothing is there yet; standard library only, any
Python from 3.9 on. A line of JSON comes first, ``{"size": bytes, "env": {...}, "packages": [...]}``, then a
tar archive of that size with the folders ``agent`` and ``job``, the latter only where it is not asked what
the machine is; what follows is the agent's. The agent's
events go out as they are, then its files, ``{"event": "file", "name": ..., "base64": ...}``, then ``result``.

The end of standard input ends the agent (see channel.py), and with it this process, which removes the job's
folder. A folder that a killed one left is removed by the next.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

PREFIX = "edgecnn-job-"


class Gone(Exception):
    """The one who asked is gone."""


def read(count: int) -> Iterator[bytes]:
    """So many bytes of standard input, and not one more: the rest is the agent's."""
    while count > 0:
        chunk = os.read(0, min(count, 1 << 20))
        if not chunk:
            raise Gone
        count -= len(chunk)
        yield chunk


def read_line() -> bytes:
    """The first line of standard input, byte by byte."""
    line = b""
    while not line.endswith(b"\n"):
        line += b"".join(read(1))
    return line


def emit(event: str, **fields: Any) -> None:
    """One event as a line of JSON."""
    os.write(1, (json.dumps(dict(event=event, **fields)) + "\n").encode())


def sweep() -> None:
    """Remove the folders of processes that are no more."""
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "*")):
        pid = os.path.basename(folder)[len(PREFIX) :].split("-")[0]
        if pid.isdigit() and not os.path.exists("/proc/" + pid) and os.path.exists("/proc/self"):
            shutil.rmtree(folder, ignore_errors=True)


def receive(folder: str, size: int) -> None:
    """Unpack the archive that standard input holds."""
    archive = os.path.join(folder, "job.tar")
    with open(archive, "wb") as out:
        for chunk in read(size):
            out.write(chunk)
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = member.name.split("/")
            if not member.isfile() or len(parts) != 2 or parts[0] not in ("agent", "job") or ".." in parts:
                raise ValueError("the archive holds " + member.name)
            os.makedirs(os.path.join(folder, parts[0]), exist_ok=True)
            content = tar.extractfile(member)
            assert content
            with open(os.path.join(folder, *parts), "wb") as out:
                shutil.copyfileobj(content, out)
    os.remove(archive)


def run(folder: str, header: dict[str, Any]) -> int:
    """Run the agent, and send what it left."""
    env = dict(os.environ, **header["env"])
    packages = [os.path.expanduser(path) for path in header["packages"]]
    found = [path for path in packages if os.path.isdir(path)]
    env["PYTHONPATH"] = os.pathsep.join([*found, env.get("PYTHONPATH", "")]).strip(os.pathsep)
    job = os.path.join(folder, "job")
    asked = job if os.path.isdir(job) else "--probe"
    # Its closing event is held back until the files are out.
    agent = subprocess.Popen(
        [sys.executable, os.path.join(folder, "agent"), asked], env=env, stdout=subprocess.PIPE
    )
    try:
        closing = b""
        assert agent.stdout
        for line in agent.stdout:
            if json.loads(line)["event"] == "result":
                closing = line
            else:
                os.write(1, line)
        status = agent.wait()
        if status == 0:
            for name in ("result.json", "outputs.npy"):
                path = os.path.join(job, name)
                if os.path.exists(path):
                    with open(path, "rb") as file:
                        emit("file", name=name, base64=base64.b64encode(file.read()).decode())
        os.write(1, closing)
        return status
    finally:
        agent.kill()
        agent.wait()


def main() -> int:
    """The exit status is the agent's, or 128 and the signal's number where one ended it."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(3))
    sweep()
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
    try:
        header = json.loads(read_line())
        receive(folder, header["size"])
        emit("received")
        status = run(folder, header)
        return status if status >= 0 else 128 - status
    except Gone:
        return 3
    except (OSError, ValueError, tarfile.TarError) as error:
        emit("error", kind="failed", message=f"the job cannot be received: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


sys.exit(main())
