"""What an Android phone says of itself to adb's user. All is optional: None where it does not tell."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from edgecnn.agent.cores import Refused, chosen
from edgecnn.agent.host import KERNEL_FEATURES
from edgecnn.devices.android.client import Shell
from edgecnn.errors import ConfigError

CPUS = "/sys/devices/system/cpu"

# Names by which answers are told apart, and the commands that give them. grep names the file of each line.
_FACTS = {
    "maker": "getprop ro.product.manufacturer",
    "model": "getprop ro.product.model",
    "chip_maker": "getprop ro.soc.manufacturer",
    "chip": "getprop ro.soc.model",
    "board": "getprop ro.board.platform",
    "android": "getprop ro.build.version.release",
    "machine": "uname -m",
    "cpuinfo": "cat /proc/cpuinfo",
    "cores": f"ls -d {CPUS}/cpu[0-9]*",
    "top_khz": f"grep . {CPUS}/cpu[0-9]*/cpufreq/cpuinfo_max_freq /dev/null",
}
_STATE = {
    "airplane_mode": "settings get global airplane_mode_on",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "power": "dumpsys power | grep mWakefulness=",
    "load": "cat /proc/loadavg",
    "governor": f"grep . {CPUS}/cpu[0-9]*/cpufreq/scaling_governor /dev/null",
    "khz": f"grep . {CPUS}/cpu[0-9]*/cpufreq/scaling_cur_freq /dev/null",
}
_MARK = "@edgecnn "
# BatteryManager.BATTERY_STATUS_* (https://developer.android.com/reference/android/os/BatteryManager).
_BATTERY = {"1": "unknown", "2": "charging", "3": "discharging", "4": "not charging", "5": "full"}
# https://source.android.com/docs/core/power/thermal-mitigation; from light on, the phone slows itself down.
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class Facts:
    """What does not change during a run."""

    model: str | None
    """Maker and model."""
    cpu_model: str | None
    """Maker and model of the chip."""
    cpu_arch: str | None
    """Machine type, such as ``aarch64``."""
    cpu_features: list[str] | None
    """Those of `KERNEL_FEATURES` that it has."""
    os: str | None
    """``Android`` and its version."""
    top_mhz: dict[int, float | None]
    """Top frequency of each core, by its number."""


@dataclass(frozen=True)
class State:
    """What does change."""

    at: float
    """When it was read, in seconds since 1970, by the clock here."""
    airplane_mode: bool | None
    """Whether its radios are off."""
    wakefulness: str | None
    """``Awake``, ``Dreaming``, ``Dozing`` or ``Asleep``."""
    plugged: list[str] | None
    """What powers it: ``AC``, ``USB``, ``Wireless``, ``Dock``."""
    battery: str | None
    """``charging``, ``discharging``, ``not charging`` or ``full``."""
    battery_percent: float | None
    """Charge of the battery."""
    battery_temperature_c: float | None
    """Its temperature."""
    thermal_status: str | None
    """From ``none`` over ``light`` to ``shutdown``: what the phone does against heat."""
    temperature_c: float | None
    """Of the hottest sensor."""
    load: float | None
    """One-minute load average."""
    governor: dict[int, str]
    """Frequency governor of each core that tells."""
    mhz: dict[int, float]
    """Clock of each core that tells."""

    @property
    def throttled(self) -> bool | None:
        """Whether the phone slows itself down against heat."""
        return None if self.thermal_status is None else self.thermal_status != _THERMAL[0]


def read_facts(shell: Shell) -> Facts:
    """Ask a phone what it is."""
    return describe_facts(_ask(shell, _FACTS))


def read_state(shell: Shell) -> State:
    """Ask a phone how it is."""
    at = time.time()
    return describe_state(_ask(shell, _STATE), (at + time.time()) / 2)


def describe_facts(said: dict[str, str]) -> Facts:
    """From what the commands wrote."""
    flags = re.search(r"^Features\s*:(.*)$", said["cpuinfo"], re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    cores = sorted(int(core) for core in re.findall(r"/cpu(\d+)$", said["cores"], re.MULTILINE))
    khz = _by_core(said["top_khz"])
    return Facts(
        model=_joined(said["maker"], said["model"]),
        cpu_model=_joined(said["chip_maker"], said["chip"]) or said["board"] or None,
        cpu_arch=said["machine"] or None,
        cpu_features=[name for name in KERNEL_FEATURES if name in present] if flags else None,
        os=f"Android {said['android']}" if said["android"] else None,
        top_mhz={core: int(khz[core]) / 1000 if core in khz else None for core in cores},
    )


def describe_state(said: dict[str, str], at: float) -> State:
    """From what the commands wrote at that time, in seconds since 1970."""
    # A history of events with other numbers may follow the state: only whole lines count.
    battery = dict(re.findall(r"^ *([A-Za-z][A-Za-z ]*): (\S+)$", said["battery"], re.MULTILINE))
    tenths = _number(battery.get("temperature"))
    plugged = [
        key.split()[0] for key, value in battery.items() if key.endswith("powered") and value == "true"
    ]
    wakefulness = re.search(r"mWakefulness=([A-Za-z]+)", said["power"])
    status = re.search(r"^\s*Thermal Status: ([0-6])$", said["thermal"], re.MULTILINE)
    # What stands above this heading is cached and may be days old.
    current = said["thermal"].partition("Current temperatures from HAL")[2].partition("Current cooling")[0]
    sensors = [float(value) for value in re.findall(r"mValue=(-?[\d.]+)", current)]
    # Absent sensors report -99.9 or 255 degrees and the like.
    plausible = [value for value in sensors if 0 < value < 150]
    return State(
        at=at,
        airplane_mode={"0": False, "1": True}.get(said["airplane_mode"].strip()),
        wakefulness=wakefulness.group(1) if wakefulness else None,
        plugged=plugged if battery else None,
        battery=_BATTERY.get(battery.get("status", "")),
        battery_percent=_number(battery.get("level")),
        battery_temperature_c=None if tenths is None else tenths / 10,
        thermal_status=_THERMAL[int(status.group(1))] if status else None,
        temperature_c=max(plausible) if plausible else None,
        load=_number(said["load"].partition(" ")[0]),
        governor=_by_core(said["governor"]),
        mhz={core: int(khz) / 1000 for core, khz in _by_core(said["khz"]).items()},
    )


def state_fields(states: list[State], began: float, cores: list[int]) -> dict[str, Any]:
    """The fields of a `Measurement` that tell of a phone's state, in their form for JSON.

    Args:
        states: one or more, in order, the first before the timed part and the last after it.
        began: when that began, in seconds since 1970.
        cores: that the model may use.
    """
    known = [state for state in states if state.throttled is not None]
    by = sorted({f"thermal status {state.thermal_status}" for state in known if state.throttled})
    fields: dict[str, Any] = {
        "throttled": bool(by) if known else None,
        "throttled_by": by if known else None,
        "governor": next((states[-1].governor[core] for core in cores if core in states[-1].governor), None),
        "telemetry": [
            {
                "at_s": state.at - began,
                "busy": False,
                "temperature_c": state.temperature_c,
                "frequency_mhz": _fastest(state, cores),
                "throttled": state.throttled,
                "battery_percent": state.battery_percent,
                "charging": None if state.battery in (None, "unknown") else state.battery != "discharging",
            }
            for state in states
        ],
    }
    for name, state in (("before", states[0]), ("after", states[-1])):
        fields[f"load_{name}"] = state.load
        fields[f"temperature_c_{name}"] = state.temperature_c
        fields[f"frequency_mhz_{name}"] = _fastest(state, cores)
    return fields


def record(facts: Facts, states: list[State]) -> dict[str, Any]:
    """For the reader of a measurement: the phone, and its airplane mode, screen, charge and heat before and
    after."""
    told = ("airplane_mode", "wakefulness", "plugged", "battery", "battery_percent", "battery_temperature_c")
    before, after = (
        {name: getattr(state, name) for name in (*told, "thermal_status")}
        for state in (states[0], states[-1])
    )
    return {"model": facts.model, "before": before, "after": after}


def cores_of(wanted: str, facts: Facts) -> list[int]:
    """Numbers of the cores that ``big``, ``little``, ``4``, ``0-3`` or ``0-3,6`` mean, as on any device.

    Raises:
        ConfigError: the phone has no such cores, or does not tell.
    """
    try:
        return chosen(wanted, facts.top_mhz)
    except Refused as error:
        raise ConfigError(f"{facts.model}: {error}") from error


def _ask(shell: Shell, commands: dict[str, str]) -> dict[str, str]:
    """What each command writes; nothing where it fails."""
    script = "; ".join(f"echo '{_MARK}{name}'; {command} 2>/dev/null" for name, command in commands.items())
    _, text = shell.run("sh", "-c", script)
    answers = dict.fromkeys(commands, "")
    for part in text.split(_MARK)[1:]:
        name, _, answer = part.partition("\n")
        answers[name.strip()] = answer.strip("\n")
    return answers


def _by_core(text: str) -> dict[int, str]:
    """Values by core, from lines such as ``/sys/.../cpu4/cpufreq/scaling_cur_freq:1066000``."""
    return {
        int(core): value for core, value in re.findall(r"/cpu(\d+)/cpufreq/\w+:(\S+)$", text, re.MULTILINE)
    }


def _fastest(state: State, cores: list[int]) -> float | None:
    return max((state.mhz[core] for core in cores if core in state.mhz), default=None)


def _joined(*words: str) -> str | None:
    return " ".join(word.strip() for word in words if word.strip()) or None


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
