"""Wheels for another machine, unpacked by the pip that is here; nothing of them is run."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import MissingDependency, last_line, one_line
from edgecnn.fetch.packages import TIMEOUT_S
from edgecnn.fetch.published import FetchError

# manylinux2014 is 2_17, the oldest that wheels are still made for (PEP 600).
_OLDEST_GLIBC_MINOR = 17


@dataclass(frozen=True)
class Platform:
    """What decides which wheels fit."""

    python: str
    """CPython's ``3.11``."""
    machine: str
    """As in the tags of wheels, such as ``aarch64``."""
    glibc_minor: int
    """Of glibc 2."""

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine} with glibc 2.{self.glibc_minor}"


class NoWheels(Exception):
    """The package index has none that fit."""


def unpack_wheels(wanted: Sequence[str], platform: Platform, folder: Path) -> None:
    """Let pip fetch wheels for a machine and unpack them into a folder, as ``pip install --target`` does.

    Args:
        wanted: requirements, and options of pip.
        platform: the machine.
        folder: takes the packages.

    Raises:
        NoWheels: there are none for that machine.
        FetchError: the package index cannot be reached, or pip fails.
        MissingDependency: there is no pip here.
    """
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency("there is no pip here to fetch wheels with", hint="python -m ensurepip")
    minors = range(platform.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
    tags = [*(f"manylinux_2_{minor}_{platform.machine}" for minor in minors)]
    command = [
        # -P: a pip.py in the current folder is not pip.
        *(sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-compile", "--only-binary=:all:", "--implementation=cp"),
        *("--target", str(folder), "--python-version", platform.python),
        *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{platform.machine}")),
        *wanted,
    ]
    patience = {"PIP_DEFAULT_TIMEOUT": str(TIMEOUT_S), "PIP_RETRIES": "1"}
    reply = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**patience, **os.environ},
        check=False,
    )
    if reply.returncode == 0:
        return
    # pip says of an index that it cannot reach, too, that it has no matching distribution.
    unreachable = "connection broken by" in reply.stderr
    if not unreachable and re.search("No matching distribution|ResolutionImpossible", reply.stderr):
        raise NoWheels
    why = "the package index cannot be reached" if unreachable else one_line(last_line(reply.stderr))
    raise FetchError(why)
