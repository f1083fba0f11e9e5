"""Logs of USB power meters: columns of time and power, found by their names and units."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from edgecnn.errors import ConfigError, one_line

# Meters' programs write their version and settings above the columns' names.
_HEADER_WITHIN = 50
# In the order in which they are tried; None is any white space.
_SEPARATORS = ("\t", ";", ",", None)
_MOST_BYTES = 1 << 29

_UNITS = {
    "power": {"w": 1.0, "mw": 1e-3, "uw": 1e-6, "µw": 1e-6, "watt": 1.0, "watts": 1.0},
    "voltage": {"v": 1.0, "mv": 1e-3, "uv": 1e-6, "µv": 1e-6, "volt": 1.0, "volts": 1.0},
    "current": {"a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6, "amp": 1.0, "amps": 1.0},
    "time": {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
}
"""What each quantity may be given in, and how much of W, V, A and s that is."""

# Names in whole, beside what `_quantity` finds in part of one. The supply is the bus, and not D+, D- or CC.
_NAMES = {
    "power": ("p", "w"),
    "voltage": ("u", "v", "vbus", "vin"),
    "current": ("i", "a", "ibus", "iin"),
}
_NOT_THE_MEAN = re.compile("min|max|peak|factor")

# Later than 2001 in seconds; what is smaller counts from the meter's own start.
_EARLIEST_S = 1e9
# Clocks of meters jitter between packets; what goes back further is another recording.
_BACK_S = 1.0

_HINT = "columns such as timestamp and power_W, or timestamp, voltage_V and current_A"


@dataclass(frozen=True)
class Trace:
    """Power over time."""

    times: tuple[float, ...]
    """Seconds since 1970 in UTC, each later than the one before."""
    watts: tuple[float, ...]
    """Power at these times."""
    assumed: tuple[str, ...] = ()
    """What was taken for granted in reading it, a sentence each, without full stops."""


@dataclass(frozen=True)
class _Columns:
    """Where a log's lines hold what."""

    line: int
    """The number of the line with the names."""
    separator: str | None
    """Between cells; None is white space."""
    names: list[str]
    """The cells of that line."""
    times: list[int]
    """The columns that give the time together."""
    time_unit_s: float | None
    """Of a time that is a number, where it is named."""
    utc: bool
    """Whether the names say that times are in UTC."""
    factors: list[tuple[int, float]]
    """The columns whose product is the power, each with its unit in W, V or A."""


def read_power(path: Path) -> Trace:
    """Read the log of a power meter: a CSV file, or one with tabs, semicolons or spaces between its cells.

    It needs a line of names, among them a time and a power, or a time, a voltage and a current, with units as
    in ``power_mW`` or ``Current [A]``; without one, W, V and A. Times are dates as in ISO 8601 or seconds or
    milliseconds since 1970: times that count from the meter's start fit no run.

    Raises:
        ConfigError: a file that cannot be read, has no such columns, or holds a line that is none; it names
            the line.
    """
    lines = _lines(path)
    columns = _find_columns(path, lines)
    found: list[tuple[float, float]] = []
    local = False
    for number, line in enumerate(lines[columns.line :], columns.line + 1):
        cells = _cells(line, columns.separator)
        if not line.strip() or line.startswith("#") or cells == columns.names:
            continue
        if len(cells) < len(columns.names) and number == len(lines):
            continue  # the recording was cut off
        where = f"{path}, line {number}"
        if len(cells) <= max(*columns.times, *(column for column, _ in columns.factors)):
            raise ConfigError(f"{where} has {len(cells)} of {len(columns.names)} columns")
        time, is_local = _time(" ".join(cells[i].strip() for i in columns.times), columns, where)
        local = local or is_local
        if found and time < found[-1][0] - _BACK_S:
            raise ConfigError(f"{where}: the time goes back", hint="keep one recording in the file")
        comma = columns.separator == ","
        watts = math.prod(_number(cells[i], where, comma) * unit for i, unit in columns.factors)
        found.append((time, watts))
    found.sort()
    # Clocks that show whole seconds give several readings one time.
    same = [(time, [watts for _, watts in group]) for time, group in groupby(found, key=lambda pair: pair[0])]
    if len(same) < 2:
        raise ConfigError(f"{path} holds fewer than two readings")
    return Trace(
        times=tuple(time for time, _ in same),
        watts=tuple(math.fsum(watts) / len(watts) for _, watts in same),
        assumed=("the meter's times are in this machine's time zone",) if local else (),
    )


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint="cut out the run")
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="name the meter's log with --power"
        ) from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return raw.decode(encoding, errors="replace").splitlines()


def _find_columns(path: Path, lines: list[str]) -> _Columns:
    nearest: int | None = None
    for number, line in enumerate(lines[:_HEADER_WITHIN], 1):
        for separator in _SEPARATORS:
            names = _cells(line.removeprefix("#"), separator)
            quantities = [_quantity(name) for name in names]
            times = _time_columns(names, quantities)
            factors = _power_columns(quantities)
            if times and factors:
                unit = quantities[times[0]] if len(times) == 1 else None
                utc = any("utc" in names[i].lower() or "gmt" in names[i].lower() for i in times)
                return _Columns(number, separator, names, times, unit[1] if unit else None, utc, factors)
            if (times or factors) and nearest is None:
                nearest = number
    if nearest is None:
        raise ConfigError(f"{path} names no columns of time and power", hint=_HINT)
    names_shown = one_line(lines[nearest - 1], 80)
    raise ConfigError(f"{path}, line {nearest} names no time with a power: {names_shown}", hint=_HINT)


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _quantity(name: str) -> tuple[str, float | None] | None:
    """What a column holds, and the unit of it where its name says so."""
    words, unit = name.strip().lower(), None
    if marked := re.fullmatch(r"(.*?)\s*(?:\((.*)\)|\[(.*)\]|/\s*(\w+))", words):
        words, unit = marked.group(1), marked.group(2) or marked.group(3) or marked.group(4)
    elif (last := re.fullmatch(r"(.+?)[\s_]+(\w+)", words)) and any(
        last.group(2) in u for u in _UNITS.values()
    ):
        words, unit = last.group(1), last.group(2)
    named = {
        "power": ("power" in words or "watt" in words) and not _NOT_THE_MEAN.search(words),
        "voltage": "volt" in words and not _NOT_THE_MEAN.search(words),
        "current": ("curr" in words or words.startswith("amp")) and not _NOT_THE_MEAN.search(words),
        "time": "time" in words or "date" in words,
    }
    for quantity, units in _UNITS.items():
        if not named[quantity] and words not in _NAMES.get(quantity, ()):
            continue
        if unit is None or unit in units:
            return quantity, None if unit is None else units[unit]
        if quantity == "time":
            return quantity, None  # a form, as in Time (HH:MM:SS)
        return None  # power in Wh and the like
    return None


def _time_columns(names: Sequence[str], quantities: Sequence[tuple[str, float | None] | None]) -> list[int]:
    """One column with date and time, or two."""
    held = {i: names[i].strip().lower() for i, q in enumerate(quantities) if q and q[0] == "time"}
    found = {re.sub(r"\s*[(\[].*", "", name): i for i, name in held.items()}
    whole = [i for name, i in found.items() if "stamp" in name or ("date" in name and "time" in name)]
    if whole:
        return whole[:1]
    if "date" in found and "time" in found:
        return [found["date"], found["time"]]
    return list(found.values())[:1]


def _power_columns(quantities: Sequence[tuple[str, float | None] | None]) -> list[tuple[int, float]]:
    """A column of power, else one of voltage and one of current."""
    first: dict[str, tuple[int, float]] = {}
    for i, held in enumerate(quantities):
        if held:
            first.setdefault(held[0], (i, 1.0 if held[1] is None else held[1]))
    if "power" in first:
        return [first["power"]]
    return [first["voltage"], first["current"]] if "voltage" in first and "current" in first else []


def _time(text: str, columns: _Columns, where: str) -> tuple[float, bool]:
    """Seconds since 1970, and whether that took the time to be local."""
    text = text if columns.separator == "," else text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.replace("/", "-"))
        except ValueError:
            raise ConfigError(
                f"{where}: '{text[:40]}' is no date and time", hint="as in 2025-01-31 10:00:00, or since 1970"
            ) from None
        if moment.tzinfo is None and columns.utc:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp(), moment.tzinfo is None
    # Without a unit by their size: seconds until the year 5138, milliseconds, microseconds.
    unit_s = columns.time_unit_s or (1.0 if value < 1e11 else 1e-3 if value < 1e14 else 1e-6)
    if not math.isfinite(value) or value * unit_s < _EARLIEST_S:
        raise ConfigError(
            f"{where}: the time {text[:40]} counts from the meter's own start, so it fits no run",
            hint="record times of day with their date, or seconds since 1970",
        )
    return value * unit_s, False


def _number(text: str, where: str, comma_separates: bool) -> float:
    try:
        value = float(text if comma_separates else text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: '{text.strip()[:40]}' is no number")
    return value
