"""A set's parts where it comes without: decided by what the images are, not by their names or order."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgecnn.data.labelled import LabelledSet
from edgecnn.errors import DataError
from edgecnn.progress import Progress, silent

# One image in so many is held out.
_HELD_OUT = 5


def split(data: LabelledSet, part: Literal["train", "test"], progress: Progress = silent) -> LabelledSet:
    """The held-out fifth of each class, or the rest, by the fingerprints of the images.

    Held out are those with the smallest fingerprints, at least one of each class. An image that is there
    twice is never in both parts, even where its copies are of different classes.

    Raises:
        DataError: an image cannot be read, or a class has one image only, so that it cannot be in both parts.
    """
    prints = []
    for index in range(len(data)):
        prints.append(data.pictures.fingerprint(index))
        progress(f"reading {data.name}", index + 1, len(data))
    held_out: set[str] = set()
    few = []
    for label, name in enumerate(data.classes):
        own = sorted({prints[index] for index in np.flatnonzero(data.labels == label)})
        if len(own) < 2:
            few.append(name)
        held_out.update(own[: max(1, len(own) // _HELD_OUT)])
    if few:
        raise DataError(
            f"{data.name} cannot be parted: one different image only in class {', '.join(few)}",
            hint="add images to it, or pass the parts as sets of their own",
        )
    chosen = [index for index, name in enumerate(prints) if (name in held_out) == (part == "test")]
    missing = set(range(len(data.classes))) - set(data.labels[chosen].tolist())
    if missing:
        names = ", ".join(data.classes[label] for label in sorted(missing))
        raise DataError(
            f"{data.name} has the images of {names} under other classes too", hint="label each once"
        )
    return LabelledSet(f"{data.name}:{part}", data.classes, data.labels[chosen], data.pictures.take(chosen))
