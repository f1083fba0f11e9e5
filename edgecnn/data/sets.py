"""Sets of images: the photographs that travel with the package, and network inputs from any set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgecnn.data.images import list_images, open_image
from edgecnn.data.preprocess import preprocess
from edgecnn.errors import DataError
from edgecnn.spec import Preprocess


def shipped_photos_dir() -> Path:
    """The folder of shipped photographs: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_calib_data"
    return installed if installed.is_dir() else package.parent / "calib_data"


def calibration_images() -> list[Path]:
    """The shipped photographs that decide int8 ranges where the user brings none."""
    return list_images(shipped_photos_dir() / "calibration")


def verification_images() -> list[Path]:
    """The shipped photographs that artifacts are checked on; calibration never sees them."""
    return list_images(shipped_photos_dir() / "verification")


class Images(Protocol):
    """Network inputs, float32 (1, C, H, W), that can be counted, and iterated over more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]: ...


@dataclass(frozen=True)
class ImageStream:
    """Network inputs from image files, decoded one at a time each time it is iterated over.

    Yields float32 arrays in NCHW, shape (1, C, H, W); memory does not grow with the number of files.
    Iterating raises ``DataError`` at the first file that cannot be decoded.
    """

    paths: tuple[Path, ...]
    """The image files, in this order."""
    recipe: Preprocess
    """How each becomes an input."""

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        for path in self.paths:
            image = open_image(path, channels=len(self.recipe.mean))
            try:
                x = preprocess(image, self.recipe)
            except DataError as error:
                raise DataError(f"image {path}: {error}", hint=error.hint) from error
            yield x


def digest(paths: Iterable[Path]) -> str:
    """What identifies a set of files in a manifest, in hexadecimal: contents and order count, names do not.

    It is the SHA-256 over the files' own SHA-256 digests (32 bytes each, in order), so that the boundaries
    between files count too.

    Raises:
        DataError: a file cannot be read.
    """
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(f"image {path} cannot be read: {error.strerror}") from error
    return whole.hexdigest()
