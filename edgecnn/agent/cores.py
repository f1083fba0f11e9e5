"""Pinning the process to some of the machine's cores."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .host import core_frequencies

# Favoured cores of one kind clock up to 4 % higher than their neighbours (a Core i9-12900K: 5.2 and 5.1 GHz),
# cores of different kinds 10 % or more (a Helio G99: 2.2 and 2.0 GHz).
ALIKE_WITHIN = 1.05


class Refused(Exception):
    """The job asks for what this machine does not have."""


def pin(wanted: str) -> list[int]:
    """Pin this process, and every thread that it starts from now on, to ``big``, ``little`` or ``0-3`` cores.

    Returns:
        The numbers of the cores.

    Raises:
        Refused: there are no such cores, or this system does not pin processes.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise Refused("this system does not pin processes to cores")
    top_mhz = core_frequencies()
    cores = chosen(wanted, {core: top_mhz.get(core) for core in sorted(os.sched_getaffinity(0))})
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise Refused(f"the process cannot be pinned to cores {ranges(cores)}: {error.strerror}") from error
    return cores


def ranges(cores: list[int]) -> str:
    """Sorted numbers as text: ``0-3,6``."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def chosen(wanted: str, usable: Mapping[int, float | None]) -> list[int]:
    """The cores that ``big``, ``little``, ``4``, ``0-3`` or ``0-3,6`` mean.

    ``little`` are those of the lowest top frequency, ``big`` all others.

    Args:
        wanted: what names them.
        usable: top frequency in MHz of each core, None where that is not known.

    Raises:
        Refused: there are no such cores, or it is not known which they are.
    """
    return _of_kind(wanted, usable) if wanted in ("big", "little") else _numbered(wanted, usable)


def _numbered(wanted: str, usable: Mapping[int, float | None]) -> list[int]:
    cores: set[int] = set()
    for part in wanted.split(","):
        first, _, last = part.partition("-")
        meant = {core for core in usable if int(first) <= core <= int(last or first)}
        if not meant or len(meant) != int(last or first) - int(first) + 1:
            raise Refused(f"there are no cores {part} to pin to, only {ranges(sorted(usable))}")
        cores |= meant
    return sorted(cores)


def _of_kind(wanted: str, usable: Mapping[int, float | None]) -> list[int]:
    top_mhz = {core: mhz for core, mhz in usable.items() if mhz is not None}
    if not top_mhz:
        raise Refused(f"this system does not tell which cores are {wanted}; give their numbers")
    slowest = min(top_mhz.values())
    little = sorted(core for core, mhz in top_mhz.items() if mhz <= slowest * ALIKE_WITHIN)
    big = sorted(set(top_mhz) - set(little))
    if not big:
        raise Refused(f"there are no {wanted} cores: {ranges(little)} are all of {slowest:g} MHz")
    return big if wanted == "big" else little
