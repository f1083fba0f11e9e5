"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from edgecnn.errors import OutputError


def write_whole(path: Path, data: bytes, *, if_full: str, if_not: str) -> None:
    """Write a file, and the folders above it; what was there before stays until the new one is complete.

    Args:
        path: the file.
        data: all of its bytes.
        if_full: what to do where the disk is full.
        if_not: what to do where it cannot be written for another reason.

    Raises:
        OutputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {why}", hint=if_full if full else if_not) from error
    finally:
        with suppress(OSError):
            partial.unlink()
