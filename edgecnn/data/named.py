"""Named sets: fetched once, decoded once, and known by the digest of their images ever after."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from edgecnn.data.catalogue import Group, NamedSet
from edgecnn.data.decode import Array, Labels, decode, members, read_group
from edgecnn.data.labelled import ArrayPictures, FilePictures, LabelledSet, Pictures
from edgecnn.errors import DataError
from edgecnn.fetch.archive import Archives
from edgecnn.fetch.cache import data_dir, work_folder
from edgecnn.fetch.published import FetchError
from edgecnn.progress import Progress, silent


def open_named(known: NamedSet, part: Literal["train", "test"], progress: Progress = silent) -> LabelledSet:
    """A part of a named set, ``<name>:<part>``; fetched first where it is not in the cache.

    Raises:
        DataError: it has no such part, or no place delivers the right images.
        OutputError: the cache cannot be written.
    """
    groups = [group for group in known.groups if group.part == part]
    if not groups:
        parts = ", ".join(f"{known.name}:{name}" for name in known.parts)
        raise DataError(f"{known.name} has no {part} part", hint=f"there is {parts}")
    folder = data_dir() / known.name
    read = [_read(group, folder) for group in groups]
    if None in read:
        _fetch_groups(known, folder, progress)
        read = [_read(group, folder) for group in groups]
    name = f"{known.name}:{part}"
    images = [group[0] for group in read if group is not None]
    labels = np.concatenate([group[1] for group in read if group is not None])
    return LabelledSet(name, known.classes, labels, _pictures(name, images))


def _pictures(name: str, images: list[Array | tuple[Path, ...]]) -> Pictures:
    first = images[0]
    if isinstance(first, np.ndarray):
        return ArrayPictures(first, np.arange(len(first)), name)
    return FilePictures(tuple(path for group in images for path in group if isinstance(path, Path)))


def _folder(group: Group, folder: Path) -> Path:
    return folder / f"{group.part}-{group.sha256[:16]}"


def _read(group: Group, folder: Path) -> tuple[Array | tuple[Path, ...], Labels] | None:
    """The group from the cache; None where it is not there, or no longer what it should be."""
    with suppress(DataError):
        return read_group(group, _folder(group, folder))
    return None


def _fetch_groups(known: NamedSet, folder: Path, progress: Progress) -> None:
    """Bring all groups that are missing into the cache, each archive fetched once."""
    with work_folder(folder) as scratch:
        archives = Archives(Path(scratch), folder, progress)
        for group in known.groups:
            if _read(group, folder) is None:
                _fetch_group(known, group, folder, archives, Path(scratch))


def _fetch_group(known: NamedSet, group: Group, folder: Path, archives: Archives, scratch: Path) -> None:
    reasons = []
    for place in group.places:
        unpacked = Path(tempfile.mkdtemp(dir=scratch))
        decoded = Path(tempfile.mkdtemp(dir=scratch))
        try:
            found = archives.take_out(place.archive, members(place), unpacked)
            decode(group, place, found, decoded)
            read_group(group, decoded)
            _publish(group, decoded, folder)
            return
        except (FetchError, DataError, OSError) as error:
            reasons.append(f"{place.archive}: {error}")
    raise DataError(
        f"{known.name} is not in the cache and cannot be fetched: {'; '.join(reasons)}",
        hint=f"check the network; the cache is {folder}",
    )


def _publish(group: Group, decoded: Path, folder: Path) -> None:
    """Put a finished group into its place, where another process may have put it in the meantime."""
    if _read(group, folder) is None:
        final = _folder(group, folder)
        shutil.rmtree(final, ignore_errors=True)
        decoded.chmod(0o755)
        os.replace(decoded, final)
