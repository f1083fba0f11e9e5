"""The value that compilation gives: a bundle on disk, described."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """A compiled and checked network in its folder."""

    path: Path
    """The bundle's folder."""
    variant: str
    """The network: ``mobilenet_v2-1.0-224``."""
    target: str
    """Name of the target it was compiled for."""
    runtime: str
    """The runtime that executes it."""
    device: str
    """Address of the device that the target names."""
    options: dict[str, Any]
    """The target's options, passed to the runtime as they are."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    model: Path
    """The model file that the runtime opens."""
    companions: tuple[Path, ...]
    """Files the model file needs beside it, such as OpenVINO's weights."""
    macs: int
    """Multiply-accumulates of one inference."""
    manifest: dict[str, Any] = field(repr=False)
    """``manifest.json``: sources, hashes, versions, checks and their figures."""
