"""Processes that are waited for, and what the last line they said was."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edgecnn.errors import one_line

_POLL_S = 0.2


def run(
    command: Sequence[str],
    log: Path,
    watch: Callable[[], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a command to its end, its standard input open as long as this process lives.

    Args:
        command: what to run.
        log: takes what it says on standard output and standard error.
        watch: called all the while; what it raises ends the process.
        cwd: where to run it, None for the current folder.
        env: its environment, None for our own.

    Returns:
        Its exit status, or below 0 the signal that ended it.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        while process.poll() is None:
            watch()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
    finally:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()
    return process.returncode


def last_words(log: Path) -> str:
    """The last line of a log, or the last that is marked as an error."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line]
    errors = [line for line in said if "error" in line.lower()]
    return one_line((errors or said or ["no message"])[-1])
