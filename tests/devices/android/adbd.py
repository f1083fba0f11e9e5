"""A small Android debug daemon on a loopback port, which the real adb client takes for a phone.

Its shell is this machine's, with a folder of stand-ins first in its PATH. It speaks what adb needs of the
protocol (https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/docs/dev): messages
of six 32-bit words and a payload, streams that are opened, written, acknowledged and closed, the shell
protocol with its five kinds of packets, and the sync service for push and pull.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

VERSION = 0x01000001
MAX_PAYLOAD = 256 * 1024
# Kinds of AUTH: what the phone sends, and the last that the client sends when no signature was taken.
TOKEN, PUBLIC_KEY = 1, 3
# Packets of the shell protocol.
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)


def word(name: bytes) -> int:
    """A command's number: its four letters."""
    return int(struct.unpack("<I", name)[0])


CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    word(name) for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)


class Gone(Exception):
    """The other end closed the stream or the connection."""


class Daemon:
    """A phone that adb can connect to at ``address``. Its faults may be set at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unauthorized = False
        """Ask for a key, and take none."""
        self.full = False
        """Have no space for files that are pushed."""
        self.drop_at: bytes | None = None
        """Die, with all connections, where a shell is about to write this."""
        self.cut_at: bytes | None = None
        """End a shell's stream there, as one that has ended well but with its exit status left out."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[_Connection] = []

    def __enter__(self) -> Daemon:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.die()

    def die(self) -> None:
        """Close all connections, without a word."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(accepted, self)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One client, which is the adb server, and its streams."""

    def __init__(self, accepted: socket.socket, daemon: Daemon) -> None:
        self.socket = accepted
        self.daemon = daemon
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: int, first: int, second: int, payload: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(payload), 0, command ^ 0xFFFFFFFF)
        with self._sending:
            self.socket.sendall(header + payload)

    def serve(self) -> None:
        """Answer until the connection breaks."""
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._receive(24))
                self._take(command, first, second, self._receive(size))
        except (Gone, OSError):
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.closed()
            self.socket.close()

    def _receive(self, size: int) -> bytes:
        held = b""
        while len(held) < size:
            chunk = self.socket.recv(size - len(held))
            if not chunk:
                raise Gone
            held += chunk
        return held

    def _take(self, command: int, first: int, second: int, payload: bytes) -> None:
        if command in (CNXN, AUTH):
            if self.daemon.unauthorized:
                # To a signature the answer is another token; to the public key itself, what the user decides.
                if first != PUBLIC_KEY:
                    self.send(AUTH, TOKEN, 0, os.urandom(20))
            else:
                banner = b"device::ro.product.name=stand_in;ro.product.model=Stand_In;features=shell_v2,cmd"
                self.send(CNXN, VERSION, MAX_PAYLOAD, banner)
        elif command == OPEN:
            stream = _Stream(self, remote=first, local=len(self._streams) + 1)
            self._streams[stream.local] = stream
            service = payload.rstrip(b"\0").decode()
            threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
        elif second in self._streams:
            stream = self._streams[second]
            if command == WRTE:
                stream.arrived(payload)
            elif command == OKAY:
                stream.acknowledged.set()
            elif command == CLSE:
                stream.closed()


class _Stream:
    """One service that the client has opened."""

    def __init__(self, connection: _Connection, *, remote: int, local: int) -> None:
        self.remote, self.local = remote, local
        self.acknowledged = threading.Event()
        self._connection = connection
        self._arrived: queue.Queue[bytes | None] = queue.Queue()
        self._held = b""
        self._open = True

    def arrived(self, payload: bytes) -> None:
        self._arrived.put(payload)

    def closed(self) -> None:
        """The other end is gone."""
        self._open = False
        self._arrived.put(None)
        self.acknowledged.set()

    def serve(self, service: str) -> None:
        kind, _, argument = service.partition(":")
        try:
            if kind == "sync":
                self._accepted()
                _sync(self, full=self._connection.daemon.full)
            elif kind.startswith("shell,v2"):
                self._accepted()
                _Shell(self, argument, self._connection.daemon).run()
            self.close()
        except (Gone, OSError):
            pass

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            chunk = self._arrived.get()
            if chunk is None:
                raise Gone
            self._held += chunk
            self._accepted()
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PAYLOAD):
            self.acknowledged.clear()
            if not self._open:
                raise Gone
            self._connection.send(WRTE, self.local, self.remote, data[start : start + MAX_PAYLOAD])
            self.acknowledged.wait()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.send(CLSE, self.local, self.remote)

    def _accepted(self) -> None:
        self._connection.send(OKAY, self.local, self.remote)


class _Shell:
    """One command. Where the client goes, it is hung up on and its pipes are closed, as by the real daemon
    (shell_service.cpp); nothing else ends it."""

    def __init__(self, stream: _Stream, command: str, daemon: Daemon) -> None:
        self._stream, self._daemon = stream, daemon
        self._writing = threading.Lock()
        self._cut = False
        environment = {**os.environ, "PATH": f"{daemon.path}{os.pathsep}{os.environ['PATH']}"}
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def run(self) -> None:
        process = self._process
        assert process.stdout
        assert process.stderr
        threading.Thread(target=self._feed, daemon=True).start()
        pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in ((process.stdout.fileno(), STDOUT), (process.stderr.fileno(), STDERR))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        # Where nobody reads any more, neither does the daemon hold the pipes.
        process.stdout.close()
        process.stderr.close()
        if not self._cut:
            self._send(EXIT, bytes([process.wait() & 255]))

    def _send(self, kind: int, data: bytes) -> None:
        with self._writing:
            self._stream.write(struct.pack("<BI", kind, len(data)) + data)

    def _feed(self) -> None:
        assert self._process.stdin
        try:
            while True:
                kind, size = struct.unpack("<BI", self._stream.read(5))
                data = self._stream.read(size)
                if kind == CLOSE_STDIN:
                    self._process.stdin.close()
                elif kind == STDIN:
                    self._process.stdin.write(data)
                    self._process.stdin.flush()
        except (Gone, OSError, ValueError):
            self._process.send_signal(signal.SIGHUP)
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _pump(self, source: int, kind: int) -> None:
        with contextlib.suppress(Gone, OSError):
            while (data := os.read(source, 1 << 16)) and not self._cut:
                if self._daemon.drop_at is not None and self._daemon.drop_at in data:
                    self._daemon.die()
                    raise Gone
                if self._daemon.cut_at is not None and self._daemon.cut_at in data:
                    self._cut = True
                    self._send(kind, data[: data.index(self._daemon.cut_at)])
                    self._stream.close()
                    return
                self._send(kind, data)


def _sync(stream: _Stream, *, full: bool) -> None:
    """Requests of four letters, a size and so many bytes, until QUIT."""
    answers: dict[bytes, Callable[[_Stream, str], None]] = {
        b"STAT": _stat,
        b"SEND": _refuse if full else _take_file,
        b"RECV": _give_file,
    }
    while True:
        request, size = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        answers[request](stream, stream.read(size).decode())


def _stat(stream: _Stream, path: str) -> None:
    try:
        found = os.stat(path)
        stream.write(struct.pack("<4s3I", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))
    except OSError:
        stream.write(struct.pack("<4s3I", b"STAT", 0, 0, 0))


def _chunks(stream: _Stream) -> bytes:
    held = b""
    while True:
        kind, size = struct.unpack("<4sI", stream.read(8))
        if kind == b"DONE":  # with a time in place of a size
            return held
        held += stream.read(size)


def _take_file(stream: _Stream, argument: str) -> None:
    path, _, mode = argument.rpartition(",")
    content = _chunks(stream)
    Path(path).write_bytes(content)
    os.chmod(path, int(mode) & 0o777)
    stream.write(struct.pack("<4sI", b"OKAY", 0))


def _refuse(stream: _Stream, argument: str) -> None:
    _chunks(stream)
    why = b"couldn't write file: No space left on device"
    stream.write(struct.pack("<4sI", b"FAIL", len(why)) + why)


def _give_file(stream: _Stream, path: str) -> None:
    content = Path(path).read_bytes()
    for start in range(0, len(content), 1 << 16):
        chunk = content[start : start + (1 << 16)]
        stream.write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
    stream.write(struct.pack("<4sI", b"DONE", 0))
