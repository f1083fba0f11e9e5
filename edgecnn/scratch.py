"""Folders for the time of a call, without those that killed processes left."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# Where several systems share a folder for such files, another's process looks as if it were no more.
_LEFT_S = 3600.0


def scratch(what: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder that goes with its context, ``what`` being part of its name.

    A process that is killed leaves its own, which any later one removes an hour on.
    """
    with suppress(OSError):
        _sweep(tempfile.gettempdir())
    return tempfile.TemporaryDirectory(prefix=f"edgecnn-{what}-{os.getpid()}-", ignore_cleanup_errors=True)


@functools.cache
def _sweep(place: str) -> None:
    """Remove this user's folders of processes that are no more; once in each process."""
    import psutil  # type: ignore[import-untyped]

    for folder in Path(place).glob("edgecnn-*-*-*"):
        named = re.fullmatch(r"edgecnn-[a-z0-9]+-(\d+)-\w+", folder.name)
        with suppress(OSError):
            told = folder.lstat()
            mine = not hasattr(os, "getuid") or told.st_uid == os.getuid()
            old = time.time() - told.st_mtime > _LEFT_S
            if named and mine and old and not folder.is_symlink() and not psutil.pid_exists(int(named[1])):
                shutil.rmtree(folder, ignore_errors=True)
