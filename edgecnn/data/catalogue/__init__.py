"""Data sets that are known by name: what each is, where its bytes can be had, and by which digest."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from edgecnn.fetch.published import Archive
from edgecnn.zoo.labels import read_labels


@dataclass(frozen=True)
class Place:
    """One way to get a group's images."""

    archive: Archive
    """What is downloaded."""
    format: Literal["png_rows", "cifar", "idx", "files"]
    """How the images lie in it: see :mod:`edgecnn.data.decode`."""
    images: tuple[str, ...]
    """Members with images, in order; for ``files`` one regular expression for their paths, in whose group
    ``label`` the class stands."""
    labels: tuple[str, ...]
    """Members with labels, in order, where these are apart."""


@dataclass(frozen=True)
class Group:
    """Images that are had together."""

    part: Literal["train", "test"]
    """The part of the set that they belong to; a part may have several groups."""
    count: int
    """How many images."""
    shape: tuple[int, int, int] | None
    """(height, width, channels) of images that are kept as one array; None for image files."""
    sha256: str
    """What they are known by, whoever delivered them: see :mod:`edgecnn.data.decode`."""
    places: tuple[Place, ...]
    """Tried in this order."""


@dataclass(frozen=True)
class NamedSet:
    """A data set that is known by name."""

    name: str
    """Its name on the command line."""
    title: str
    """One line for people."""
    origin: str
    """Authors, year and where to find them."""
    licence: str
    """On which terms it may be used."""
    classes: tuple[str, ...]
    """Names of the classes; a label is an index into them."""
    groups: tuple[Group, ...]
    """Its images, in order."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it has."""
        return tuple(dict.fromkeys(group.part for group in self.groups))


@cache
def named_sets() -> dict[str, NamedSet]:
    """All of them, by name."""
    texts = sorted(
        (item for item in files(__package__).iterdir() if item.name.endswith(".toml")),
        key=lambda item: item.name,
    )
    sets = (_read(item.name.removesuffix(".toml"), tomllib.loads(item.read_text("utf-8"))) for item in texts)
    return {known.name: known for known in sets}


def _read(name: str, table: dict[str, Any]) -> NamedSet:
    archives = {key: Archive(**fields) for key, fields in table["archives"].items()}
    classes = table["classes"]
    return NamedSet(
        name=name,
        title=table["title"],
        origin=table["origin"],
        licence=table["licence"],
        classes=read_labels(classes) if isinstance(classes, str) else tuple(classes),
        groups=tuple(_group(fields, archives) for fields in table["groups"]),
    )


def _group(fields: dict[str, Any], archives: dict[str, Archive]) -> Group:
    return Group(
        part=fields["part"],
        count=fields["count"],
        shape=tuple(fields["shape"]) if "shape" in fields else None,
        sha256=fields["sha256"],
        places=tuple(
            Place(
                archive=archives[place["archive"]],
                format=place["format"],
                images=tuple(place["images"]),
                labels=tuple(place.get("labels", ())),
            )
            for place in fields["places"]
        ),
    )
