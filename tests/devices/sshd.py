"""A real sshd on a loopback port that stands for a board, with keys, a home and a PATH of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_SSHD = shutil.which(
    "sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
)
_LACKING = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
_LACKING += [] if _SSHD else ["sshd"]

needs_sshd = pytest.mark.skipif(
    bool(_LACKING) or sys.platform != "linux",
    reason=f"needs Linux and OpenSSH; lacking: {' '.join(_LACKING)}",
)

_MARK = "EDGECNN_TEST_BOARD"


@dataclass(frozen=True)
class Board:
    """Where it is, what can be changed of it, and what is left on it."""

    folder: Path
    port: int
    user: str
    sshd: psutil.Process

    @property
    def address(self) -> str:
        """As SshDevice takes it."""
        return f"{self.user}@127.0.0.1:{self.port}"

    @property
    def known_hosts(self) -> Path:
        """Of the client."""
        return self.folder / "known_hosts"

    @property
    def home(self) -> Path:
        """Of the user on the board."""
        return self.folder / "home"

    @property
    def client_path(self) -> str:
        """A PATH whose ``ssh`` has the keys of this board and no others."""
        return f"{self.folder / 'client'}{os.pathsep}{os.environ['PATH']}"

    def trust(self, port: int, key: str = "host_key") -> None:
        """Let the client know one host key, for that port."""
        public = (self.folder / f"{key}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {public}")

    def new_key(self, name: str) -> None:
        """Make a key pair in the board's folder."""
        _key(self.folder / name)

    def python3(self, script: str) -> None:
        """What ``python3`` is there: the text of a shell script."""
        path = self.folder / "bin" / "python3"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def processes(self) -> list[psutil.Process]:
        """Those that a connection has started, wherever they have gone since."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.folder):
                    found.append(process)
        return found

    def job_folders(self) -> list[Path]:
        """Those that have not been removed."""
        return list((self.folder / "tmp").glob("edgecnn-*"))

    def left_after(self, seconds: float, *, connections: bool = True) -> list[object]:
        """Processes and folders that have not gone by then, and connections, which can start others."""
        deadline = time.monotonic() + seconds
        while True:
            left: list[object] = [*self.processes(), *self.job_folders()]
            if connections:
                left += self.sshd.children()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


@contextlib.contextmanager
def running(folder: Path, client_options: str = "") -> Iterator[Board]:
    """A board with this interpreter as its ``python3`` and nothing else on its PATH.

    ``client_options`` go to ssh before those of the caller, which they override.
    """
    import pwd

    assert _SSHD
    for name in ("bin", "client", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    for name in ("host_key", "client_key"):
        _key(folder / name)
    shutil.copyfile(folder / "client_key.pub", folder / "authorized_keys")
    port = free_port()
    ssh = (
        f"exec {shutil.which('ssh')} -F /dev/null -o UserKnownHostsFile={folder}/known_hosts "
        f"-o GlobalKnownHostsFile=/dev/null -o IdentityFile={folder}/client_key -o IdentitiesOnly=yes "
        f'-o IdentityAgent=none {client_options} "$@"\n'
    )
    (folder / "client" / "ssh").write_text(f"#!/bin/sh\n{ssh}")
    (folder / "client" / "ssh").chmod(0o755)
    env = {"PATH": folder / "bin", "HOME": folder / "home", "TMPDIR": folder / "tmp", _MARK: folder}
    config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host_key",
        "PidFile": "none",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "UsePAM": "no",
        "StrictModes": "no",
        "SetEnv": " ".join(f"{name}={value}" for name, value in env.items()),
    }
    if _openssh_version() >= (9, 8):  # it shuts out those who fail, which is what tests do
        config["PerSourcePenalties"] = "no"
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(
            mode=0o755, exist_ok=True
        )  # sshd wants it, and packages make it on start only
    with (folder / "sshd.log").open("wb") as log:
        sshd = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    board = Board(folder, port, pwd.getpwuid(os.geteuid()).pw_name, psutil.Process(sshd.pid))
    board.python3(f'exec {shlex.quote(sys.executable)} "$@"')
    board.trust(port)
    try:
        _wait_for(port, sshd, folder / "sshd.log")
        yield board
    finally:
        for process in [*board.sshd.children(recursive=True), *board.processes()]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        sshd.kill()
        sshd.wait()


class Proxy:
    """Forwards a loopback port to another, until it is told to keep its connections and pass nothing on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Pass nothing on from now on, not even an end."""
        self._flowing.clear()

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._sockets[0].accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flowing.wait()
                sink.sendall(data)
            self._flowing.wait()
            sink.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)


def _openssh_version() -> tuple[int, int]:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _wait_for(port: int, sshd: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sshd.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")
