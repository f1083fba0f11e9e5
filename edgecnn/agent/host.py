"""What can be read about the machine. Every reading is optional: None where the platform does not tell."""

from __future__ import annotations

import glob
import os
import platform
import re
import sys
from typing import Any

# Extensions that decide which int8 and fp16 kernels a runtime picks, by their names in /proc/cpuinfo.
KERNEL_FEATURES = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8",
    "asimd", "asimdhp", "asimddp", "i8mm", "sve", "sme",
)  # fmt: skip

# "Now" bits of the Raspberry Pi firmware: frequency capped, throttled, soft temperature limit
# (https://www.raspberrypi.com/documentation/computers/os.html#get_throttled).
RASPBERRY_PI_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
RASPBERRY_PI_THROTTLED_NOW = 0b1110


def facts() -> dict[str, Any]:
    """What does not change during a run."""
    cpuinfo = _read("/proc/cpuinfo") or ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return {
        "cpu_model": _cpu_model(cpuinfo),
        "cpu_arch": platform.machine() or None,
        "cpu_count": _usable_cores(),
        "cpu_features": [name for name in KERNEL_FEATURES if name in present] if flags else None,
        "os": platform.platform(terse=True) or None,
    }


def snapshot() -> dict[str, Any]:
    """What does change: read before and after the timed blocks."""
    return {
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(),
        "temperature_c": _temperature_c(),
        "throttle_count": _throttle_count(),
        "throttled_now": _throttled_now(),
    }


def throttled(before: dict[str, Any], after: dict[str, Any]) -> bool | None:
    """Whether heat or power slowed the processor between two snapshots; None where that cannot be told."""
    if before["throttled_now"] is not None:
        return bool(before["throttled_now"] or after["throttled_now"])
    if before["throttle_count"] is not None and after["throttle_count"] is not None:
        return bool(after["throttle_count"] > before["throttle_count"])
    return None


def peak_memory_bytes() -> int | None:
    """The process's highest resident set so far, in bytes."""
    # VmHWM first: on Linux ru_maxrss of a process started by vfork begins at the parent's own peak, since
    # exec folds the old address space's high-water mark into it (exec_mmap in fs/exec.c), and a parent that
    # has torch loaded would lend its gigabyte to every measurement.
    status = _read("/proc/self/status") or ""
    if high_water := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
        return int(high_water.group(1)) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere: getrusage(2)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ") or None
    except OSError:
        return None


def _numbers(pattern: str) -> list[float]:
    found = []
    for path in glob.glob(pattern):
        try:
            found.append(float(_read(path) or ""))
        except ValueError:
            continue
    return found


def _cpu_model(cpuinfo: str) -> str | None:
    if named := re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        return named.group(1).strip()
    if sys.platform == "darwin":
        import subprocess  # here, since the other platforms start faster without it

        try:
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip() or None
        except (OSError, subprocess.SubprocessError):
            return None
    return _read("/proc/device-tree/model") or platform.processor() or None


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _frequency_mhz() -> float | None:
    if current := _numbers("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"):
        return max(current) / 1000  # kHz
    reported = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    return max(float(value) for value in reported) if reported else None


def _temperature_c() -> float | None:
    # Absent sensors report -273 or 255 degrees and the like.
    zones = [value / 1000 for value in _numbers("/sys/class/thermal/thermal_zone*/temp")]
    plausible = [value for value in zones if 0 < value < 150]
    return max(plausible) if plausible else None


def _throttle_count() -> int | None:
    counts = _numbers("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
    return int(sum(counts)) if counts else None


def _throttled_now() -> bool | None:
    try:
        return bool(int(_read(RASPBERRY_PI_THROTTLED) or "", 16) & RASPBERRY_PI_THROTTLED_NOW)
    except ValueError:
        return None
