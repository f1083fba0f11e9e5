"""What is usable on this machine, and what is missing for the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from edgecnn.target import shipped_targets_dir
from edgecnn.versions import version_of
from edgecnn.zoo.fetch import cache_dir

_TIMEOUT_S = 60

# Role, import, package, extra that brings it (empty: the base install).
_PACKAGES = (
    ("framework", "torch", "torch", ""),
    ("quantiser", "nncf", "nncf", ""),
    ("runtime", "onnxruntime", "onnxruntime", ""),
    ("runtime", "ai_edge_litert.interpreter", "ai-edge-litert", ""),
    ("runtime", "openvino", "openvino", "[openvino]"),
)


@dataclass(frozen=True)
class Finding:
    """One piece and whether it can be used."""

    kind: str
    """``framework``, ``quantiser``, ``runtime``, ``device``, ``tool`` or ``folder``."""
    name: str
    """What it is."""
    usable: bool
    """Whether it works here."""
    detail: str
    """Its version or path; where it is not usable, what is missing and how to get it."""


def diagnose() -> list[Finding]:
    """Look at every runtime, device and tool.

    Packages are imported in processes of their own, since a broken native library can end the process that
    loads it.
    """
    probes = [(*package, _import(package[1])) for package in _PACKAGES]
    findings = [_package(*probe) for probe in probes]
    findings.append(Finding("device", "local", True, f"this machine, {os.cpu_count()} cores"))
    pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    usable = pip.returncode == 0
    findings.append(Finding("tool", "pip", usable, pip.stdout.split(" from ")[0].strip() if usable else
                            "missing, so weights cannot be fetched from packages: python -m ensurepip"))  # fmt: skip
    findings.append(_cache())
    targets = shipped_targets_dir()
    findings.append(Finding("folder", "targets", targets.is_dir(), str(targets)))
    return findings


def _import(module: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import {module}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _package(kind: str, module: str, package: str, extra: str, probe: subprocess.Popen[str]) -> Finding:
    try:
        complaint = probe.communicate(timeout=_TIMEOUT_S)[1].strip().splitlines()
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.communicate()
        return Finding(kind, package, False, f"importing {module} took over {_TIMEOUT_S} s")
    version = version_of(package)
    if probe.returncode == 0:
        return Finding(kind, package, True, version or "")
    if version is None:
        return Finding(kind, package, False, f"not installed: pip install 'edgecnn{extra}'")
    why = complaint[-1] if complaint else f"the process ended with code {probe.returncode}"
    return Finding(kind, package, False, f"{version} is installed but cannot be imported: {why}")


def _cache() -> Finding:
    folder = cache_dir()
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        return Finding("folder", "cache", False, f"{folder} cannot be written: set EDGECNN_CACHE_DIR")
    free_bytes = shutil.disk_usage(parent).free
    return Finding("folder", "cache", True, f"{folder} ({free_bytes / 1e9:.0f} GB free)")
