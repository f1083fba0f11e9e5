"""Folders of the cache that are made once, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgecnn.errors import OutputError
from edgecnn.fetch.cache import data_dir, work_folder


def kept_folder(name: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder of that name in the cache.

    Args:
        name: says by versions or digests what is in it, so that it never has to be made anew.
        make: fills an empty folder, its first argument; the second is one for what it needs meanwhile.

    Raises:
        OutputError: the cache cannot be written.
        EdgeCNNError: what ``make`` raises.
    """
    cache = data_dir().with_name("made")
    place = cache / name
    if place.is_dir():
        return place
    with work_folder(cache) as work:
        made, scratch = Path(work) / "made", Path(work) / "scratch"
        try:
            made.mkdir()
            scratch.mkdir()
            make(made, scratch)
            if not place.is_dir():  # another process may have made it meanwhile
                os.rename(made, place)
        except OSError as error:
            raise OutputError(
                f"{place} cannot be written: {error.strerror or error}",
                hint="set EDGECNN_CACHE_DIR to a folder with more room",
            ) from error
    return place
