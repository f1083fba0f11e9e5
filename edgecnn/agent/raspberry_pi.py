"""What the firmware of a Raspberry Pi tells through ``vcgencmd``.

https://www.raspberrypi.com/documentation/computers/os.html#vcgencmd
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

# Where it is when it is not on the path: Raspberry Pi OS, and images from before 2020.
FOLDERS = ("/usr/bin", "/opt/vc/bin")

COMMANDS = {
    "throttle_bits": "get_throttled",
    "frequency_mhz": "measure_clock arm",
    "temperature_c": "measure_temp",
    "power_w": "pmic_read_adc",
}
"""What tells each reading. ``measure_clock`` measures, where Linux's cpufreq repeats what it asked for."""

# Bits 0 to 3 of get_throttled are about now, and the same ones from bit 16 on about all time since the boot.
THROTTLED = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
SINCE_BOOT = 16


def find() -> str | None:
    """The path of ``vcgencmd``, or None on every other machine."""
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *FOLDERS):
        path = os.path.join(folder, "vcgencmd")
        if folder and os.access(path, os.X_OK):
            return path
    return None


def ask(tool: str, readings: list[str]) -> subprocess.Popen[bytes]:
    """Start to ask for these keys of `COMMANDS`, all by one child, since a fork of a process with a model in
    it costs the most; `parse` reads what it prints."""
    import shlex
    import subprocess  # here, since other machines start faster without it

    script = "; ".join(f"{shlex.quote(tool)} {COMMANDS[name]}" for name in readings)
    return subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the shell and the tool end together
    )


def parse(text: str) -> dict[str, Any]:
    """The readings that the output of these commands holds.

    Power is that of the rails which the Pi 5's power chip measures, current times voltage of each. It leaves
    out what does not pass the chip, such as USB devices, and the loss of the converters.
    """
    found: dict[str, Any] = {}
    if bits := re.search(r"^throttled=(0x[0-9a-fA-F]+)", text, re.MULTILINE):
        found["throttle_bits"] = int(bits.group(1), 16)
    if clock := re.search(r"^frequency\(\d+\)=(\d+)", text, re.MULTILINE):
        found["frequency_mhz"] = int(clock.group(1)) / 1e6
    if temperature := re.search(r"^temp=([\d.]+)'C", text, re.MULTILINE):
        found["temperature_c"] = float(temperature.group(1))
    # Older firmware: VDD_CORE_A=1.2340A; newer: VDD_CORE_A current(7)=1.2340A.
    rail = re.compile(r"^\s*(\w+)_([AV])(?:\s+\w+\(\d+\))?=(-?[\d.]+)[AV]", re.MULTILINE)
    values = {(name, unit): float(value) for name, unit, value in rail.findall(text)}
    watts = [
        amperes * values[name, "V"]
        for (name, unit), amperes in values.items()
        if unit == "A" and (name, "V") in values
    ]
    if watts:
        found["power_w"] = sum(watts)
    return found
