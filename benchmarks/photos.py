"""Photographs to calibrate and judge int8 networks on: fetched by package name, never shipped.

    python benchmarks/photos.py CACHE

photos.toml says which packages of PyPI, npm and Debian they come from. Three sets, no photograph in two:

- calibration: the 100 varied photographs of ai-benchmark, 512x512;
- photographs: others of at least 200 pixels on the shorter side, more than 500. 70 are of ImageNet classes,
  labelled; nearly half come from GCompris (animals, monuments, tools, fish); the rest are test images,
  wallpapers and what website templates bring: landscapes, towns, things on desks, people;
- thumbnails: 919 of 120x120 from Open Images, nearly all of birds.

None of it is a benchmark of accuracy: few have a label, and many show what ImageNet has no class for. Where
the photographs of ai-benchmark and of the templates come from is undocumented, so they are fetched and never
shipped.

Photographs that look alike count once, the first of them, by a difference hash, which survives scaling.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from qt_resources import read_resources
from results import say

from edgecnn.data.images import open_image
from edgecnn.errors import DataError
from edgecnn.fetch.archive import Archives
from edgecnn.fetch.published import Archive, FetchError
from edgecnn.progress import silent

Set = Literal["calibration", "photographs", "thumbnails"]

TABLE = Path(__file__).with_suffix(".toml")
SIDE_AT_LEAST = {"calibration": 1, "photographs": 200, "thumbnails": 1}
# Difference hashes (64 bits) that differ in no more bits than this are taken for one photograph.
ALIKE_BITS = 5


@dataclass(frozen=True)
class Source:
    """Photographs inside one package: a row of photos.toml, which explains the fields."""

    set: Set
    archive: Archive
    members: str
    resources: str | None
    count: int


@dataclass(frozen=True)
class Photo:
    """One photograph in the cache."""

    path: Path
    """Where it lies."""
    package: str
    """The package that it came in."""
    member: str
    """Its path in there."""
    label: int | None
    """Its ImageNet class, where the package says it."""
    shorter_side: int
    """In pixels."""
    look: int
    """Its difference hash: of 8x8 places those that are darker than the place to their right."""


def photos(which: Set, cache: Path) -> list[Photo]:
    """A set's photographs, fetched into ``cache`` where they are not there yet; always in the same order.

    None looks like one of the calibration set, or like another of its own set.

    Raises:
        DataError: a package cannot be fetched, or holds something else than photos.toml says.
    """
    chosen: list[Photo] = []
    looks: list[int] = []
    for source in sorted(sources(), key=lambda source: source.set != "calibration"):
        if source.set not in ("calibration", which):
            continue
        for photo in _photos_of(source, cache):
            alike = any((photo.look ^ look).bit_count() <= ALIKE_BITS for look in looks)
            # Thumbnails are too many, and too small, to be told apart so.
            if photo.shorter_side < SIDE_AT_LEAST[which] or (alike and which == "photographs"):
                continue
            looks.append(photo.look)
            if source.set == which:
                chosen.append(photo)
    return chosen


def sources() -> list[Source]:
    """The rows of photos.toml."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["package"]
    return [
        Source(
            set=row["set"],
            archive=Archive(row["kind"], row["name"], row["version"], row.get("sha256")),
            members=row["members"],
            resources=row.get("resources"),
            count=row["count"],
        )
        for row in rows
    ]


def _photos_of(source: Source, cache: Path) -> list[Photo]:
    """All of a package's, unpacked once for each wording of its row."""
    wording = repr(source)
    folder = cache / f"{source.archive.name}-{hashlib.sha256(wording.encode()).hexdigest()[:8]}"
    index = folder / "index.json"
    if not index.is_file():
        say(f"fetching {source.archive}")
        folder.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps(_unpack(source, cache, folder), indent=1), encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
    return [Photo(folder / row.pop("file"), source.archive.name, **row) for row in rows]


def _unpack(source: Source, cache: Path, folder: Path) -> list[dict[str, Any]]:
    pattern = re.compile(source.resources or source.members)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as work:
        taken = Path(work) / "taken"
        taken.mkdir()
        try:
            archives = Archives(Path(work), cache, silent)
            members = archives.take_out(source.archive, re.compile(source.members), taken)
        except FetchError as error:
            raise DataError(f"{source.archive} cannot be had: {error}") from error
        for member, content in sorted(_contents(members, source.resources is not None)):
            found = pattern.fullmatch(member)
            if found is None:
                continue
            # The name is ours, whatever the package calls it.
            path = folder / f"{len(rows):04d}{Path(member).suffix.lower()}"
            path.write_bytes(content)
            image = open_image(path, 3)
            label = found.groupdict().get("label")
            rows.append(
                {
                    "file": path.name,
                    "member": member,
                    "label": None if label is None else int(label),
                    "shorter_side": min(image.size),
                    "look": difference_hash(image),
                }
            )
    if len(rows) != source.count:
        raise DataError(f"{source.archive} holds {len(rows)} photographs, not {source.count}")
    return rows


def _contents(members: dict[str, Path], resources: bool) -> Iterator[tuple[str, bytes]]:
    for member, path in members.items():
        if resources:
            yield from ((f"{member}{inside}", content) for inside, content in read_resources(path))
        else:
            yield member, path.read_bytes()


def difference_hash(image: Image.Image) -> int:
    """64 bits that stay nearly the same where an image is scaled or saved anew."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int("".join("01"[bit] for bit in (grey[:, 1:] > grey[:, :-1]).ravel().astype(int)), 2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/photos.py CACHE")
    for name in SIDE_AT_LEAST:
        fetched = photos(name, Path(sys.argv[1]))  # type: ignore[arg-type]
        by_package = ", ".join(
            f"{count} {package}" for package, count in Counter(p.package for p in fetched).items()
        )
        print(f"{len(fetched)} {name}: {by_package}")
