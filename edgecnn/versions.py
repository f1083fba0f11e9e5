"""Versions of everything that had a hand in an artifact."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

TOOLS = ("edgecnn", "torch", "onnx", "onnx-ir", "onnxruntime", "numpy", "pillow")
"""Packages that take part in every export."""


def version_of(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def tool_versions(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """Versions of Python, the common tools and the packages named, by package name."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in (*TOOLS, *packages)}
