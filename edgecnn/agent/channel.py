"""Events out on stdout, commands in on stdin."""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Any


class Channel:
    """The agent's line to the process that started it.

    The events get a descriptor of their own and descriptor 1 becomes stderr, because runtimes print to stdout
    from C++ as they please. Stdin is read by a daemon thread, in a blocking ``os.read`` that costs the timed
    loop nothing; it ends the process when stdin does.
    """

    def __init__(self) -> None:
        self._events = os.dup(1)
        os.dup2(2, 1)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read_commands, daemon=True).start()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event as a line of JSON."""
        os.write(self._events, (json.dumps(dict(event=event, **fields)) + "\n").encode())

    def next_command(self) -> str:
        """Block until a line comes, and return it stripped."""
        return self._lines.get()

    def _read_commands(self) -> None:
        pending = b""
        # os.read and not sys.stdin: an interpreter that shuts down while a daemon thread holds the lock of a
        # buffered stdin aborts (_enter_buffered_busy in CPython's Modules/_io/bufferedio.c).
        while chunk := os.read(0, 4096):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._lines.put(line.decode().strip())
        os._exit(3)
