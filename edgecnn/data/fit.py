"""Which output of a network stands for which class of a set."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgecnn.data.labelled import LabelledSet
from edgecnn.errors import DataError
from edgecnn.target import did_you_mean
from edgecnn.zoo.labels import read_labels

# So many classes that do not fit are named, the rest counted.
_NAMED = 5


def fit_labels(data: LabelledSet, labels: tuple[str, ...] | None, outputs: int) -> npt.NDArray[np.int64]:
    """The output that stands for each class of a set: ``fit_labels(...)[data.labels]`` are the right answers.

    A class is found by its name: that of an output, or one of several that commas part in it (``tench, Tinca
    tinca``); case, underscores and hyphens do not matter. Among 1000 outputs the WordNet ids of ImageNet's
    folders are names too. Failing that, whole numbers are outputs, counted from 0. Where the outputs have no
    names, as many classes as there are outputs are these in order.

    Args:
        data: the set.
        labels: names of the outputs, if the network has any.
        outputs: how many outputs the network has.

    Returns:
        int64, one for each class of ``data.classes``; -1 for a class that fits none and has no image.

    Raises:
        DataError: a class with images that fits no output, or the output of another class.
    """
    if data.classes == labels:
        return np.arange(len(labels))
    used = frozenset(np.unique(data.labels).tolist())
    found = _by_name(data.classes, labels, outputs)
    if not found and labels is None and len(data.classes) == outputs:
        return np.arange(outputs)
    _refuse_strangers(data, [i for i in sorted(used) if i not in found], labels, outputs)
    owners: dict[int, int] = {}
    for place in sorted(used):
        owner = owners.setdefault(found[place], place)
        if owner != place:
            raise DataError(
                f"classes {data.classes[owner]} and {data.classes[place]} of {data.name} are one output of "
                f"the network, {found[place]}",
                hint="give each class a folder or label of its own",
            )
    return np.array([found.get(place, -1) for place in range(len(data.classes))], np.int64)


def _by_name(classes: Sequence[str], labels: tuple[str, ...] | None, outputs: int) -> dict[int, int]:
    """Outputs by the number of the class, of those classes that fit."""
    whole = _names(labels or (), parted=False)
    parts = _names(labels or (), parted=True)
    wordnet = _names(read_labels("imagenet_wnids"), parted=False) if outputs == 1000 else {}
    found = {}
    for place, name in enumerate(classes):
        for known in (whole, parts, wordnet):
            output = known.get(_normal(name))
            if output is not None:
                found[place] = output
                break
    if not found and all(name.isascii() and name.isdecimal() for name in classes):
        found = {place: int(name) for place, name in enumerate(classes) if int(name) < outputs}
    return found


def _names(labels: Sequence[str], *, parted: bool) -> Mapping[str, int]:
    """Outputs by the names that stand for one only."""
    found: dict[str, int | None] = {}
    for output, label in enumerate(labels):
        for name in {_normal(part) for part in (label.split(",") if parted else [label])}:
            found[name] = None if name in found else output
    return {name: output for name, output in found.items() if output is not None}


def _normal(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(text.replace("_", " ").replace("-", " ").split())


def _refuse_strangers(
    data: LabelledSet, strangers: Sequence[int], labels: tuple[str, ...] | None, outputs: int
) -> None:
    if not strangers:
        return
    names = [data.classes[place] for place in strangers]
    named = ", ".join(f"'{name}'" for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    if labels is None:
        raise DataError(
            f"the network has {outputs} outputs without names, {data.name} has {len(data.classes)} classes: "
            f"{named}{more} fit none",
            hint=f"call each class by the number of its output, from 0 to {outputs - 1}",
        )
    raise DataError(
        f"classes of {data.name} that the network does not know ({len(names)} of {len(data.classes)}): "
        f"{named}{more}",
        hint=f"number them from 0 to {outputs - 1}, or use the names; {did_you_mean(names[0], list(labels))}",
    )
