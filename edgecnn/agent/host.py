"""What can be read about the machine. Every reading is optional: None where the platform does not tell."""

from __future__ import annotations

import glob
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from . import raspberry_pi

# Extensions that decide which int8 and fp16 kernels a runtime picks, by their names in /proc/cpuinfo.
KERNEL_FEATURES = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "sve", "sme",
)  # fmt: skip

SYS = "/sys"
PROC = "/proc"

# The same bits as `vcgencmd get_throttled`, for boards that lack it; the kernel refreshes them every 2 s.
KERNEL_THROTTLED = "/devices/platform/soc*/soc*:firmware/get_throttled"

# Types of thermal zones that lie in or around the processor, on boards, phones and PCs.
CPU_ZONE = re.compile("cpu|soc|x86_pkg|core|cluster|^(big|mid|little)", re.IGNORECASE)

# A firmware that does not answer must not hold up the job.
ANSWER_S = 2.0


def facts() -> dict[str, Any]:
    """What does not change during a run."""
    cpuinfo = _read(PROC + "/cpuinfo") or ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return {
        "cpu_model": _cpu_model(cpuinfo),
        "cpu_arch": platform.machine() or None,
        "cpu_count": len(usable_cores()),
        "cpu_features": [name for name in KERNEL_FEATURES if name in present] if flags else None,
        "os": platform.platform(terse=True) or None,
    }


def snapshot() -> dict[str, Any]:
    """What does change."""
    return {**settings(), **Sensors().read(battery=True)}


def settings() -> dict[str, Any]:
    """What others may change at any time: read before and after the timed blocks."""
    return {
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": _read(_cpu(min(usable_cores()), "cpufreq/scaling_governor")),
    }


class Sensors:
    """The sensors that this machine has, looked for once, so that to read them takes little time."""

    def __init__(self) -> None:
        cores = sorted(usable_cores())
        self._zones = _zones()
        self._clocks = [_cpu(core, "cpufreq/scaling_cur_freq") for core in cores]
        self._limits = [_cpu(core, "cpufreq/scaling_max_freq") for core in cores]
        self._counts = [_cpu(core, "thermal_throttle/core_throttle_count") for core in cores]
        self._batteries = _batteries()
        self._throttled = glob.glob(SYS + KERNEL_THROTTLED)
        self._vcgencmd = raspberry_pi.find()
        self._questions = list(raspberry_pi.COMMANDS)

    def read(self, work: Callable[[], object] | None = None, *, battery: bool = False) -> dict[str, Any]:
        """Every reading, None for what is not told.

        Args:
            work: called again and again while the firmware is asked.
            battery: also read the battery, which may take a tenth of a second.
        """
        zones = [value / 1000 for value in _numbers(self._zones)]
        clocks, limits, counts = _numbers(self._clocks), _numbers(self._limits), _numbers(self._counts)
        # Absent sensors report -273 or 255 degrees and the like.
        plausible = [value for value in zones if 0 < value < 150]
        reading = {
            "temperature_c": max(plausible) if plausible else None,
            "frequency_mhz": max(clocks) / 1000 if clocks else _cpuinfo_mhz(),
            "frequency_limit_mhz": max(limits) / 1000 if limits else None,
            "throttle_count": int(sum(counts)) if counts else None,
            "throttle_bits": None,
            "power_w": None,
            "battery_percent": None,
            "charging": None,
        }
        if battery and self._batteries:
            reading["battery_percent"], reading["charging"] = _charge(self._batteries[0])
        if self._vcgencmd:
            reading.update(self._ask_firmware(self._vcgencmd, work))
        if reading["throttle_bits"] is None and self._throttled:
            reading["throttle_bits"] = _bits(self._throttled[0])
        return reading

    def _ask_firmware(self, tool: str, work: Callable[[], object] | None) -> dict[str, Any]:
        process = raspberry_pi.ask(tool, self._questions)
        deadline = time.monotonic() + ANSWER_S
        while process.poll() is None and time.monotonic() < deadline:
            if work is None:
                time.sleep(0.002)
            else:
                work()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            self._vcgencmd = None
            return {}
        answered = raspberry_pi.parse(process.communicate()[0].decode(errors="replace"))
        # What it does not know today, it will not know in a second; a zone's temperature costs less.
        self._questions = [
            name
            for name in self._questions
            if name in answered and not (name == "temperature_c" and self._zones)
        ]
        if not self._questions:
            self._vcgencmd = None
        return answered


def throttling(readings: list[dict[str, Any]]) -> list[list[str] | None]:
    """For each reading, what has slowed the processor since the one before it; None where nothing tells."""
    causes: list[list[str] | None] = []
    for place, now in enumerate(readings):
        previous = readings[max(0, place - 1)]
        found = []
        bits, bits_before = now["throttle_bits"], previous["throttle_bits"]
        if bits is not None:
            # A bit since the boot tells of the time between two readings where it was not set at the first.
            risen = bits & ~(bits if bits_before is None else bits_before)
            shown = bits | risen >> raspberry_pi.SINCE_BOOT
            found += [name for bit, name in enumerate(raspberry_pi.THROTTLED) if shown >> bit & 1]
        count, count_before = now["throttle_count"], previous["throttle_count"]
        if count is not None and count_before is not None and count > count_before:
            found.append("too hot")
        limit, limit_at_first = now["frequency_limit_mhz"], readings[0]["frequency_limit_mhz"]
        if limit is not None and limit_at_first is not None and limit < limit_at_first:
            found.append(f"clock limited to {limit:g} MHz")
        # A limit that stays says nothing of a firmware that slows the processor by itself.
        causes.append(found if found or bits is not None or count is not None else None)
    return causes


def usable_cores() -> set[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def core_frequencies() -> dict[int, float]:
    """The top frequency of each core in MHz, by its number, of those that tell."""
    found = {}
    for path in glob.glob(_cpu("[0-9]*", "cpufreq/cpuinfo_max_freq")):
        core = re.search(r"cpu(\d+)/cpufreq", path)
        if core and (khz := _numbers([path])):
            found[int(core.group(1))] = khz[0] / 1000
    return found


def cpu_seconds(cores: set[int]) -> float | None:
    """Time that these cores have worked since the boot, for whatever process or, on a virtual machine, for
    another one; None where that is not told. See proc_stat(5)."""
    ticks = 0
    lines = re.findall(r"^cpu(\d+) (.*)$", _read(PROC + "/stat") or "", re.MULTILINE)
    counted = [line for core, line in lines if int(core) in cores]
    if len(counted) < len(cores):
        return None
    for line in counted:
        # user, nice, system, idle, iowait, irq, softirq, steal, and two that are part of the first
        times = [int(word) for word in line.split()]
        ticks += sum(times[:3]) + sum(times[5:8])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes() -> int | None:
    """The process's highest resident set so far, in bytes."""
    # VmHWM first: on Linux ru_maxrss of a process started by vfork begins at the parent's own peak, since
    # exec folds the old address space's high-water mark into it (exec_mmap in fs/exec.c), and a parent that
    # has torch loaded would lend its gigabyte to every measurement.
    status = _read(PROC + "/self/status") or ""
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


def _cpu(core: int | str, name: str) -> str:
    return f"{SYS}/devices/system/cpu/cpu{core}/{name}"


def _numbers(paths: list[str]) -> list[float]:
    found = []
    for path in paths:
        try:
            found.append(float(_read(path) or ""))
        except ValueError:
            continue
    return found


def _bits(path: str) -> int | None:
    try:
        return int(_read(path) or "", 16)
    except ValueError:
        return None


def _zones() -> list[str]:
    """Thermal zones of the processor, or all where none is said to be."""
    zones = sorted(glob.glob(SYS + "/class/thermal/thermal_zone*"))
    of_cpu = [zone for zone in zones if CPU_ZONE.search(_read(zone + "/type") or "")]
    return [zone + "/temp" for zone in of_cpu or zones]


def _batteries() -> list[str]:
    """The machine's own, and not those of mice and headphones."""
    supplies = sorted(glob.glob(SYS + "/class/power_supply/*"))
    batteries = [path for path in supplies if _read(path + "/type") == "Battery"]
    return [path for path in batteries if _read(path + "/scope") != "Device"]


def _charge(battery: str) -> tuple[float | None, bool | None]:
    """Percent, and whether it runs from its charger."""
    percent, status = _numbers([battery + "/capacity"]), _read(battery + "/status")
    return percent[0] if percent else None, None if status in (None, "Unknown") else status != "Discharging"


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
    return _read(PROC + "/device-tree/model") or platform.processor() or None


def _cpuinfo_mhz() -> float | None:
    reported = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", _read(PROC + "/cpuinfo") or "", re.MULTILINE)
    return max(float(value) for value in reported) if reported else None
