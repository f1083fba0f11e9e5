"""The photographs that travel with the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgecnn.data.images import list_images
from edgecnn.data.labelled import FilePictures, Inputs
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


def verification_inputs(recipe: Preprocess) -> Inputs:
    """The shipped photographs that artifacts are checked on, as network inputs."""
    return Inputs(FilePictures(tuple(verification_images())), recipe)


class Images(Protocol):
    """Network inputs, float32 (1, C, H, W), that can be counted, and iterated over more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]: ...
