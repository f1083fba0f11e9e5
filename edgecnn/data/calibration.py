"""The images that decide int8 ranges: photographs in the package, a folder of images, or a labelled set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.data.catalogue import named_sets
from edgecnn.data.images import list_images
from edgecnn.data.labelled import FilePictures, Inputs, LabelledSet, Pictures
from edgecnn.data.open_set import open_set, split_text
from edgecnn.data.sets import Images, calibration_images
from edgecnn.errors import DataError
from edgecnn.progress import Progress, silent
from edgecnn.spec import Preprocess

# Ranges barely move beyond.
_FROM_SET = 512
_SEED = 0
# Inputs that fit are decoded once and kept; calibration reads them more than once.
_KEPT_BYTES = 64 << 20
# Two values on the scale 0..1 that are closer are the same 8-bit value.
_SAME = 1 / 512
# Images are compared by the means of so many parts a side; two that differ by less on average, of 1, are
# alike.
_PARTS = 8
_ALIKE = 0.01
# So many images are named, the rest counted.
_NAMED = 3


@dataclass(frozen=True)
class Calibration:
    """Images that calibration may see, every one of them fit for it."""

    name: str
    """What people call them."""
    images: Images = field(repr=False)
    """The network inputs, float32 (1, C, H, W)."""
    fingerprints: tuple[str, ...] = field(repr=False)
    """What each is known by in another set, see :class:`edgecnn.data.labelled.Pictures`; in order."""
    shipped: bool
    """Whether they are the photographs in the package."""
    distinct: int
    """How many of them look like none before: others add nothing to the ranges, or to a judgement on them."""
    remarks: tuple[str, ...]
    """What is odd about them but no reason to refuse, a sentence each."""

    def __len__(self) -> int:
        return len(self.fingerprints)

    @property
    def sha256(self) -> str:
        """SHA-256 over the fingerprints (32 bytes each, in order): contents and order count, names do not."""
        return hashlib.sha256(b"".join(map(bytes.fromhex, self.fingerprints))).hexdigest()


def open_calibration(text: str | Path | None, recipe: Preprocess, progress: Progress = silent) -> Calibration:
    """The calibration images that ``text`` names, as inputs of a network.

    Args:
        text: a folder of images, all of which count; a named set (its train part), a CSV file, or a part of
            any set (``photos:train``), of which 512 images are taken, as many of each class, the same ones
            each time; None for the photographs in the package.
        recipe: how an image becomes an input.
        progress: told of a fetch, and of images that are decoded.

    Raises:
        ConfigError: there is no such folder or set.
        DataError: images that cannot be read or do not become finite inputs, or all of one colour.
    """
    name, pictures = _pictures(text, progress)
    fits = len(pictures) * len(recipe.mean) * recipe.crop[0] * recipe.crop[1] * 4 <= _KEPT_BYTES
    chosen: list[int] = []
    blank: list[int] = []
    kept: list[npt.NDArray[np.float32]] = []
    looks: list[npt.NDArray[np.float32]] = []
    colourless = 0
    for index, x in enumerate(Inputs(pictures, recipe)):
        if not np.isfinite(x).all():
            raise DataError(
                f"image {pictures.name(index)} becomes an input with values that are not finite",
                hint=f"look at the preprocessing: mean {recipe.mean}, std {recipe.std}",
            )
        if (x == x[:, :, :1, :1]).all():
            blank.append(index)
            continue
        chosen.append(index)
        colourless += _is_grey(x, recipe)
        look = _look(x, recipe)
        if not looks or np.abs(np.stack(looks) - look).mean(axis=1).min() >= _ALIKE:
            looks.append(look)
        if fits:
            kept.append(x)
        progress("reading calibration images", index + 1, len(pictures))
    if not chosen:
        raise DataError(
            f"every calibration image of {name} is of one colour ({len(blank)} images): ranges cannot follow",
            hint="pass images like those that the network will see",
        )
    remarks = _remarks(pictures, blank, colourless, len(chosen), len(looks))
    pictures = pictures.take(chosen)
    return Calibration(
        name=name,
        images=kept if fits else Inputs(pictures, recipe),
        fingerprints=tuple(pictures.fingerprint(index) for index in range(len(pictures))),
        shipped=text is None,
        distinct=len(looks),
        remarks=remarks,
    )


def _pictures(text: str | Path | None, progress: Progress) -> tuple[str, Pictures]:
    if text is None:
        return "the photographs in the package", FilePictures(tuple(calibration_images()))
    source, part = split_text(text)
    if source in named_sets() or part is not None or Path(source).is_file():
        data = _spread(open_set(text, "train" if source in named_sets() else "all", progress))
        return data.name, data.pictures
    folder = Path(source)
    return str(folder), FilePictures(tuple(list_images(folder)))


def _spread(data: LabelledSet) -> LabelledSet:
    """512 images at most, as many of each class, drawn and mixed with a fixed seed."""
    draw = np.random.default_rng(_SEED)
    queues = [draw.permutation(np.flatnonzero(data.labels == label)) for label in np.unique(data.labels)]
    rank = np.concatenate([np.arange(len(queue)) for queue in queues])
    rows = np.concatenate(queues)[np.argsort(rank, kind="stable")][:_FROM_SET]
    return data.take(draw.permutation(rows).tolist())


def _is_grey(x: npt.NDArray[np.float32], recipe: Preprocess) -> bool:
    """Whether an input of a colour network shows no colour."""
    if x.shape[1] < 3:
        return False
    mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (recipe.mean, recipe.std))
    pixels = x * std + mean
    return bool(np.ptp(pixels, axis=1).max() < _SAME)


def _look(x: npt.NDArray[np.float32], recipe: Preprocess) -> npt.NDArray[np.float32]:
    """The means of an input's parts, on the scale 0..1."""
    rows, columns = (
        np.linspace(0, size, min(_PARTS, size), endpoint=False).astype(int) for size in x.shape[2:]
    )
    sums = np.add.reduceat(np.add.reduceat(x[0], rows, axis=1), columns, axis=2)
    pixels = np.outer(np.diff(rows, append=x.shape[2]), np.diff(columns, append=x.shape[3]))
    look: npt.NDArray[np.float32] = sums / pixels * np.array(recipe.std, np.float32).reshape(-1, 1, 1)
    return look.ravel()


def _remarks(
    pictures: Pictures, blank: Sequence[int], colourless: int, kept: int, distinct: int
) -> tuple[str, ...]:
    remarks = []
    if blank:
        names = ", ".join(pictures.name(index) for index in blank[:_NAMED])
        more = f" and {len(blank) - _NAMED} more" if len(blank) > _NAMED else ""
        remarks.append(f"{len(blank)} calibration images of one colour are left out: {names}{more}")
    if colourless == kept:
        remarks.append(f"all {kept} calibration images are grey: ranges have seen no colour")
    if distinct < kept:
        remarks.append(f"{kept - distinct} of {kept} calibration images look like others: they add nothing")
    if kept == 1:
        remarks.append("calibrated on a single image: ranges fit that one")
    return tuple(remarks)
