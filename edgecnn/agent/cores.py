"""Pinning the process to some of the machine's cores."""

from __future__ import annotations

import os

from .host import core_frequencies

# Favoured cores of one kind clock up to 4 % higher than their neighbours (a Core i9-12900K: 5.2 and 5.1 GHz),
# cores of different kinds 10 % or more (a Helio G99: 2.2 and 2.0 GHz).
ALIKE_WITHIN = 1.05


class Refused(Exception):
    """The job asks for what this machine does not have."""


def pin(wanted: str) -> list[int]:
    """Pin this process, and every thread that it starts from now on, to ``big``, ``little`` or ``0-3`` cores.

    ``little`` are the cores of the lowest top frequency, ``big`` all others.

    Returns:
        The numbers of the cores.

    Raises:
        Refused: there are no such cores, or this system does not pin processes.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise Refused("this system does not pin processes to cores")
    usable = sorted(os.sched_getaffinity(0))
    cores = _of_kind(wanted, usable) if wanted in ("big", "little") else _numbered(wanted)
    if absent := sorted(set(cores) - set(usable)):
        raise Refused(f"there is no core {absent[0]} to pin to, only {ranges(usable)}")
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


def _numbered(wanted: str) -> list[int]:
    cores: set[int] = set()
    for part in wanted.split(","):
        first, _, last = part.partition("-")
        if int(last or first) - int(first) > 4096:
            raise Refused(f"there are no cores {part}")
        cores.update(range(int(first), int(last or first) + 1))
    if not cores:
        raise Refused(f"there are no cores {wanted}")
    return sorted(cores)


def _of_kind(wanted: str, usable: list[int]) -> list[int]:
    top_mhz = {core: mhz for core, mhz in core_frequencies().items() if core in usable}
    if not top_mhz:
        raise Refused(f"this system does not tell which cores are {wanted}; give their numbers")
    slowest = min(top_mhz.values())
    little = sorted(core for core, mhz in top_mhz.items() if mhz <= slowest * ALIKE_WITHIN)
    big = sorted(set(top_mhz) - set(little))
    if not big:
        raise Refused(f"there are no {wanted} cores: {ranges(little)} are all of {slowest:g} MHz")
    return big if wanted == "big" else little
