"""From the files of a published data set to one array a group, and the digest that it is known by.

A group's digest is that of what its images are, not of how they were packed: SHA-256 over the pixels,
(N, H, W, C) as uint8 row by row, or over the SHA-256 digests of the image files (32 bytes each), and then
over the labels as little-endian 64-bit integers. So the same set from another place is known again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.data.catalogue import Group, Place
from edgecnn.data.images import open_image
from edgecnn.errors import DataError, one_line

IMAGES = "images.npy"
LABELS = "labels.npy"
_ROWS = 5000

Array = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def decode(group: Group, place: Place, found: dict[str, Path], folder: Path) -> None:
    """Write a group's images and labels into an empty folder, in the form that :func:`read_group` reads.

    Args:
        group: what is expected.
        place: how the files came.
        found: the place's files, by their paths in its archive.
        folder: gets ``images.npy`` or the image files, and ``labels.npy``.

    Raises:
        DataError: the files are not what they should be.
    """
    try:
        if group.shape is None:
            labels = _copy_files(place, found, folder)
        else:
            shape = (group.count, *group.shape)
            # Not mapped from the file: there a full disk kills the process.
            images = np.empty(shape, np.uint8)
            labels = _BATCHES[place.format](place, found, images)
            np.save(folder / IMAGES, images)
        np.save(folder / LABELS, labels)
    except (ValueError, EOFError, OSError, KeyError, struct.error) as error:
        raise DataError(f"cannot be decoded: {one_line(error)}") from error


def read_group(group: Group, folder: Path) -> tuple[Array | tuple[Path, ...], Labels]:
    """A decoded group: its images, mapped into memory or as paths, and its labels.

    Raises:
        DataError: it is not there, or not what it should be.
    """
    try:
        labels = np.load(folder / LABELS, allow_pickle=False).astype(np.int64)
        whole = hashlib.sha256()
        images: Array | tuple[Path, ...]
        if group.shape is None:
            images = tuple(sorted(path for path in folder.iterdir() if path.suffix != ".npy"))
            for path in images:
                with path.open("rb") as stream:
                    whole.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
            for start in range(0, len(images), _ROWS):
                whole.update(np.ascontiguousarray(images[start : start + _ROWS]).data)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot be read: {one_line(error)}") from error
    whole.update(labels.astype("<i8").tobytes())
    if whole.hexdigest() != group.sha256 or len(images) != group.count:
        raise DataError("has the wrong SHA-256")
    return images, labels


def _png_rows(place: Place, found: dict[str, Path], images: Array) -> Labels:
    """PNG files with an image in each row, its own rows one after another; labels as JSON lists."""
    start = 0
    for member in place.images:
        rows = np.asarray(open_image(found[member], images.shape[3])).reshape(-1, *images.shape[1:])
        _fill(images, start, rows)
        start += len(rows)
    labels = [label for member in place.labels for label in json.loads(found[member].read_bytes())]
    return np.array(labels, np.int64)


def _cifar(place: Place, found: dict[str, Path], images: Array) -> Labels:
    """CIFAR's binary version: records of one label byte, then the planes red, green, blue."""
    labels = []
    start = 0
    _, height, width, channels = images.shape
    for member in place.images:
        records = np.fromfile(found[member], np.uint8).reshape(-1, 1 + channels * height * width)
        planes = records[:, 1:].reshape(-1, channels, height, width)
        _fill(images, start, planes.transpose(0, 2, 3, 1))
        start += len(records)
        labels.append(records[:, 0].astype(np.int64))
    return np.concatenate(labels)


def _idx(place: Place, found: dict[str, Path], images: Array) -> Labels:
    """MNIST's format, compressed: a big-endian head, then bytes (http://yann.lecun.com/exdb/mnist)."""
    (pixels,) = (_read_idx(found[member], images.size) for member in place.images)
    (labels,) = (_read_idx(found[member], len(images)) for member in place.labels)
    _fill(images, 0, pixels.reshape(-1, *images.shape[1:]))
    return labels.astype(np.int64)


def _read_idx(path: Path, values: int) -> Array:
    with gzip.open(path) as stream:
        magic = stream.read(4)
        if magic[:3] != b"\0\0\x08" or len(magic) < 4:
            raise ValueError("it is no idx file of bytes")
        head = struct.unpack(f">{magic[3]}I", stream.read(4 * magic[3]))
        content = stream.read(values + 1)
    return np.frombuffer(content, np.uint8).reshape(head)


def _fill(images: Array, start: int, rows: Array) -> None:
    if start + len(rows) > len(images):
        raise ValueError(f"more than {len(images)} images")
    images[start : start + len(rows)] = rows


def _copy_files(place: Place, found: dict[str, Path], folder: Path) -> Labels:
    """Image files, in the order of their paths, the class in the name of each."""
    pattern = re.compile(place.images[0])
    labels = []
    for index, member in enumerate(sorted(found)):
        match = pattern.fullmatch(member)
        assert match is not None  # only such members were taken out
        labels.append(int(match["label"]))
        shutil.copyfile(found[member], folder / f"{index:05d}{Path(member).suffix.lower()}")
    return np.array(labels, np.int64)


def members(place: Place) -> frozenset[str] | re.Pattern[str]:
    """The place's files in its archive: their paths, or what these match."""
    if place.format == "files":
        return re.compile(place.images[0])
    return frozenset((*place.images, *place.labels))


_BATCHES: dict[str, Callable[[Place, dict[str, Path], Array], Labels]] = {
    "png_rows": _png_rows,
    "cifar": _cifar,
    "idx": _idx,
}
