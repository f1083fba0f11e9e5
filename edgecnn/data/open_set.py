"""Labelled images by what people call them: a named set, a folder of class folders, or a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from edgecnn.data.catalogue import named_sets
from edgecnn.data.labelled import LabelledSet
from edgecnn.data.named import open_named
from edgecnn.data.own import open_csv, open_folder
from edgecnn.data.split import split
from edgecnn.errors import ConfigError, DataError
from edgecnn.progress import Progress, silent
from edgecnn.target import did_you_mean

Part = Literal["all", "train", "test"]


def open_set(text: str | Path, part: Part = "all", progress: Progress = silent) -> LabelledSet:
    """The set that ``SET[:train|:test]`` names; an explicit part in the text wins over the argument.

    Args:
        text: a named set (``cifar10``), a folder with a folder for each class, or a CSV file of image and
            label; a name wins over a folder that is called so too (write ``./cifar10`` for that).
        part: of a named set its official parts, ``all`` being the test part, on which accuracies are
            published; of a folder or CSV file ``test`` is a fifth of each class and ``train`` the rest, by
            content, so that a file keeps its side when it is renamed, and copies of it are on the same one.
        progress: told of a fetch, and of files that are read.

    Raises:
        ConfigError: there is no such set.
        DataError: it cannot be had, or is no labelled set of at least two images.
    """
    source, asked = split_text(text)
    part = asked or part
    known = named_sets()
    if source in known:
        return _not_too_few(open_named(known[source], "test" if part == "all" else part, progress))
    path = Path(source)
    if path.is_dir():
        whole = open_folder(path)
    elif path.is_file():
        whole = open_csv(path)
    else:
        raise ConfigError(
            f"there is no data set '{source}'",
            hint=f"{did_you_mean(source, list(known))}, or pass a folder of class folders or a CSV file",
        )
    return _not_too_few(whole if part == "all" else split(whole, part, progress))


def split_text(text: str | Path) -> tuple[str, Part | None]:
    """The set and the part that ``SET[:train|:test]`` names; None where it names no part.

    Raises:
        ConfigError: a named set has no such part.
    """
    source = str(text)
    name, colon, part = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, None
    if part in ("train", "test"):
        return name, cast(Part, part)
    if name in named_sets():
        raise ConfigError(f"no part '{part}' of {name}", hint="known: train, test")
    return source, None


def _not_too_few(data: LabelledSet) -> LabelledSet:
    if len(data) < 2:
        count = "one image" if len(data) == 1 else "no image"
        raise DataError(
            f"the data set {data.name} has {count}",
            hint="pass at least two images; some hundred tell two networks apart",
        )
    return data
