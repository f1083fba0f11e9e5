"""Where fetched files are kept, and whether one is what it should be."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

# Work folders older than this were left by a process that was killed.
_STALE_S = 24 * 3600


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


def sweep(folder: Path) -> None:
    """Remove the work folders, ``.fetch-*``, that killed processes left in a folder of the cache."""
    for left in folder.glob(".fetch-*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
