"""Takes a job from standard input on a device, runs the agent on it, and leaves nothing behind.

Given to the device's Python as text (``python3 -c``), since nothing is there yet; standard library only, any
Python from 3.9 on. A line of JSON comes first, with ``size``, the bytes of the tar.gz that follows, and
``silence_s``. The rest of it says what the archive is::

    {"env": {...}, "packages": [FOLDER, ...]}   the folders agent and job, the latter only where the machine
                                                is not asked what it is; folders for the agent's Python path
    {"install": FOLDER}                         the files of that folder, which is replaced as a whole

After the archive come the agent's commands. The agent's events go out as they are, then its files,
``{"event": "file", "name": ..., "base64": ...}``, then, once nothing is left here, ``result``.

The end of standard input ends all of it, and so does silence: the other end sends a zero byte every few
seconds, since a network that is cut off says nothing, and sshd would wait for hours. A folder that a killed
process left is removed by the next.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

# Not as folders of the library here are called, which may measure on the same machine: sweep removes these.
PREFIX = "edgecnn-agent-"
RESULTS = ("result.json", "outputs.npy")


class Gone(Exception):
    """The one who asked is gone."""


class Archive:
    """The archive on standard input, as a file that ends where it does: the rest is the agent's."""

    def __init__(self, size: int, silence_s: float) -> None:
        self.left = size
        self.silence_s = silence_s

    def read(self, count: int) -> bytes:
        """At most so many bytes, none at its end."""
        if self.left == 0:
            return b""
        chunk = read(min(count, self.left), self.silence_s)
        self.left -= len(chunk)
        return chunk


def read(count: int, silence_s: float) -> bytes:
    """At least one byte of standard input and at most ``count``."""
    ready, _, _ = select.select([0], [], [], silence_s)
    chunk = os.read(0, count) if ready else b""
    if not chunk:
        raise Gone
    return chunk


def write(data: bytes) -> None:
    """All of it, to standard output: a pipe may take less than it is given."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(1, left) :]
    except OSError as error:
        raise Gone from error


def emit(event: str, **fields: Any) -> None:
    """One event as a line of JSON."""
    write((json.dumps(dict(event=event, **fields)) + "\n").encode())


def sweep(parent: str) -> None:
    """Remove the folders in ``parent`` that nobody holds any more."""
    for folder in glob.glob(os.path.join(glob.escape(parent), PREFIX + "*")):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:  # another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            pass
        finally:
            os.close(handle)


@contextlib.contextmanager
def own_folder(parent: str) -> Iterator[str]:
    """A new folder that is held while this process lives, and removed with the context."""
    sweep(parent)
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        with contextlib.suppress(OSError):  # a file system without locks, and so without sweeping
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
        if os.path.isdir(folder):  # else another's sweep took it before it was held
            break
    try:
        yield folder
    finally:
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)


def unpack(archive: Archive, folder: str) -> None:
    """Write the archive's files into a folder, as they arrive."""
    # Of a file it needs no more than read().
    with tarfile.open(fileobj=archive, mode="r|gz", bufsize=1 << 16) as tar:  # type: ignore[call-overload]
        for member in tar:
            parts = member.name.split("/")
            if not member.isfile() or any(part in ("", ".", "..") for part in parts):
                raise ValueError("the archive holds " + member.name)
            path = os.path.join(folder, *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            content = tar.extractfile(member)
            assert content
            with open(path, "wb") as out:
                shutil.copyfileobj(content, out, 1 << 18)
    while archive.read(1 << 18):  # what pads it
        pass


def run(folder: str, header: dict[str, Any]) -> tuple[int, bytes]:
    """Run the agent and send what it left.

    Returns:
        Its exit status, 128 and the signal's number where one ended it, and its closing event.
    """
    env = dict(os.environ, **header["env"])
    packages = [os.path.expanduser(path) for path in header["packages"]]
    found = [path for path in packages if os.path.isdir(path)]
    env["PYTHONPATH"] = os.pathsep.join([*found, env.get("PYTHONPATH", "")]).strip(os.pathsep)
    job = os.path.join(folder, "job")
    agent = subprocess.Popen(
        [sys.executable, os.path.join(folder, "agent"), job if os.path.isdir(job) else "--probe"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    watch = threading.Thread(target=follow, args=(agent, folder, header["silence_s"]), daemon=True)
    watch.start()
    try:
        closing = b""
        assert agent.stdout
        for line in agent.stdout:
            if line.startswith(b'{"event": "result"'):
                closing = line
            else:
                write(line)
        status = agent.wait()
        if status == 0:
            for name in RESULTS:
                path = os.path.join(job, name)
                if os.path.exists(path):
                    with open(path, "rb") as file:
                        emit("file", name=name, base64=base64.b64encode(file.read()).decode())
        # 126 and 127 are the shell's, 255 is ssh's.
        return 128 - status if status < 0 else min(status, 125), closing
    finally:
        agent.kill()
        agent.wait()


def follow(agent: subprocess.Popen[bytes], folder: str, silence_s: float) -> NoReturn:
    """Pass commands on to the agent; where they end, or nothing comes, end it and this process.

    From here and not in the main thread, which may wait for a pipe that nobody empties any more.
    """
    assert agent.stdin
    while True:
        try:
            commands = read(4096, silence_s).replace(b"\0", b"")
        except (Gone, OSError):
            agent.kill()
            agent.wait()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(3)
        with contextlib.suppress(OSError):  # an agent that has just ended
            if commands:
                os.write(agent.stdin.fileno(), commands)


def install(archive: Archive, place: str) -> None:
    """Unpack the archive beside ``place`` and put it there as a whole."""
    parent = os.path.dirname(place)
    os.makedirs(parent, exist_ok=True)
    with own_folder(parent) as folder:
        unpack(archive, os.path.join(folder, "new"))
        os.sync()  # else a board whose plug is pulled has the name and empty files
        if os.path.isdir(place):
            os.rename(place, os.path.join(folder, "old"))
        os.rename(os.path.join(folder, "new"), place)


def main() -> int:
    """Carry out what standard input asks for; the exit status is the agent's."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(3))
    doing = "received"
    status, closing = 0, b'{"event": "result"}\n'
    try:
        line = b""
        while not line.endswith(b"\n"):
            line += read(1, 30.0)
        header = json.loads(line)
        archive = Archive(header["size"], header["silence_s"])
        if "install" in header:
            install(archive, os.path.expanduser(header["install"]))
        else:
            with own_folder(tempfile.gettempdir()) as folder:
                unpack(archive, folder)
                emit("received")
                doing = "run"
                status, closing = run(folder, header)
        write(closing)
        return status
    except Gone:
        return 3
    except (OSError, ValueError, tarfile.TarError) as error:
        with contextlib.suppress(Gone):
            emit("error", kind="failed", message=f"what was sent cannot be {doing} there: {error}")
        return 1


sys.exit(main())
