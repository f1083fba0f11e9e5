"""Where fetched files are kept, and whether one is what it should be."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

from edgecnn.errors import OutputError

_WORK = ".fetch-"
# Work folders older than this were left by a process that was killed.
_STALE_S = 24 * 3600
# A network that is exported again differently leaves figures that nobody asks for any more.
_KEPT_S = 90 * 24 * 3600


def cache_dir() -> Path:
    """The folder of fetched weights: ``EDGECNN_CACHE_DIR`` if set, else in the user's cache folder."""
    chosen = os.environ.get("EDGECNN_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("edgecnn") / "weights"


def data_dir() -> Path:
    """The folder of fetched data sets, one folder a set: beside the weights."""
    chosen = os.environ.get("EDGECNN_CACHE_DIR")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("edgecnn")) / "data"


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether a file exists and the digest of its bytes is that, or begins so where it is shorter."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest().startswith(sha256)


def work_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A new folder in a folder of the cache, which is made if it is not there; what killed processes left
    of theirs is removed.

    Raises:
        OutputError: the cache cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_WORK}*"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
        return tempfile.TemporaryDirectory(prefix=_WORK, dir=folder)
    except OSError as error:
        raise OutputError(
            f"the cache folder {folder} cannot be written: {error.strerror}",
            hint="set EDGECNN_CACHE_DIR to a folder that can",
        ) from error


def forget(folder: Path, pattern: str) -> None:
    """Remove files of a folder of the cache that nothing was written to for three months."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()
