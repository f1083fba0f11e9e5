"""Images with the class of each, wherever they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgecnn.data.images import open_image
from edgecnn.data.preprocess import preprocess
from edgecnn.errors import DataError
from edgecnn.spec import Preprocess


class Pictures(Protocol):
    """Images by their number, decoded when they are asked for."""

    def __len__(self) -> int: ...

    def open(self, index: int, channels: int) -> Image.Image:
        """One image, in mode ``L`` where ``channels`` is 1, else ``RGB``."""
        ...

    def name(self, index: int) -> str:
        """What messages and tables call it."""
        ...

    def fingerprint(self, index: int) -> str:
        """SHA-256 of its content in hexadecimal, by which images are known again in another set."""
        ...

    def take(self, indices: Sequence[int]) -> Pictures:
        """Those images, in that order."""
        ...


@dataclass(frozen=True)
class FilePictures:
    """Image files; a fingerprint is that of the file's bytes."""

    paths: tuple[Path, ...]
    """The files, in order."""

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int, channels: int) -> Image.Image:
        """One image, as :func:`edgecnn.data.images.open_image` gives it."""
        return open_image(self.paths[index], channels)

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.paths[index])

    def fingerprint(self, index: int) -> str:
        """SHA-256 of the file.

        Raises:
            DataError: it cannot be read.
        """
        path = self.paths[index]
        try:
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"image {path} cannot be read: {error.strerror}") from error

    def take(self, indices: Sequence[int]) -> FilePictures:
        """Those images, in that order."""
        return FilePictures(tuple(self.paths[index] for index in indices))


@dataclass(frozen=True)
class ArrayPictures:
    """Images of one size in an array; a fingerprint is that of an image's pixels."""

    array: npt.NDArray[np.uint8] = field(repr=False)
    """(N, H, W, C), C being 1 or 3; may be mapped from a file."""
    indices: npt.NDArray[np.int64] = field(repr=False)
    """The rows of ``array`` that belong to it, in order."""
    source: str
    """What the rows are called in messages: ``<source> 17``."""

    def __len__(self) -> int:
        return len(self.indices)

    def open(self, index: int, channels: int) -> Image.Image:
        """One image, in mode ``L`` where ``channels`` is 1, else ``RGB``."""
        pixels = self.array[self.indices[index]]
        image = Image.fromarray(np.asarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
        return image.convert("L" if channels == 1 else "RGB")

    def name(self, index: int) -> str:
        """The set and the row."""
        return f"{self.source} {self.indices[index]}"

    def fingerprint(self, index: int) -> str:
        """SHA-256 of the pixels, row by row."""
        return hashlib.sha256(np.ascontiguousarray(self.array[self.indices[index]]).tobytes()).hexdigest()

    def take(self, indices: Sequence[int]) -> ArrayPictures:
        """Those images, in that order."""
        return replace(self, indices=self.indices[np.asarray(indices, np.int64)])


@dataclass(frozen=True)
class LabelledSet:
    """Images with the class of each."""

    name: str
    """What people call it: ``cifar10:test``, or the folder's name."""
    classes: tuple[str, ...]
    """Names of the classes."""
    labels: npt.NDArray[np.int64] = field(repr=False)
    """The class of each image, (N,), as an index into ``classes``."""
    pictures: Pictures = field(repr=False)
    """The images, N of them."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int]) -> LabelledSet:
        """Those images, in that order, of the same classes."""
        chosen = np.asarray(indices, np.int64)
        return replace(self, labels=self.labels[chosen], pictures=self.pictures.take(list(chosen)))

    def inputs(self, recipe: Preprocess) -> Inputs:
        """The images as network inputs."""
        return Inputs(self.pictures, recipe)

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """What each image is known by in another set."""
        return tuple(map(self.pictures.fingerprint, range(len(self))))

    @cached_property
    def sha256(self) -> str:
        """What identifies the set: SHA-256 over each image's fingerprint and the name of its class."""
        whole = hashlib.sha256()
        for fingerprint, label in zip(self.fingerprints, self.labels, strict=True):
            whole.update(f"{fingerprint} {self.classes[label]}\n".encode())
        return whole.hexdigest()


@dataclass(frozen=True)
class Inputs:
    """Network inputs from pictures, decoded one at a time each time it is iterated over.

    Yields float32 arrays in NCHW, shape (1, C, H, W); memory does not grow with their number. Iterating
    raises ``DataError`` at the first image that cannot be decoded.
    """

    pictures: Pictures
    """The images, in this order."""
    recipe: Preprocess
    """How each becomes an input."""

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        for index in range(len(self.pictures)):
            yield self.input(index)

    def input(self, index: int) -> npt.NDArray[np.float32]:
        """One of them, (1, C, H, W).

        Raises:
            DataError: the image cannot be decoded, or is too narrow.
        """
        image = self.pictures.open(index, channels=len(self.recipe.mean))
        try:
            return preprocess(image, self.recipe)
        except DataError as error:
            raise DataError(f"image {self.pictures.name(index)}: {error}", hint=error.hint) from error
