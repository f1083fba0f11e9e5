"""A folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from edgecnn.errors import ConfigError, OutputError

_PARTIAL, _REPLACED = "partial", "replaced"


def check_place(place: Path, *, force: bool) -> None:
    """Refuse a place that cannot be written before any work is done for it. Nothing is created.

    Raises:
        ConfigError: something is there already and ``force`` is not set.
        OutputError: the folder above cannot be created or written.
    """
    if place.exists() and not force:
        raise ConfigError(f"{place} exists already", hint="pass --force to replace it, or -o for another folder")
    if place.exists() and not (place / "manifest.json").is_file():
        raise ConfigError(f"{place} exists and is not a bundle", hint="edgecnn replaces only what it has written")
    parent = place.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{parent} is a file, so nothing can be written below it", hint="choose another -o folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} cannot be written", hint="choose another -o folder, or change its permissions")


@contextlib.contextmanager
def staged(place: Path) -> Iterator[Path]:
    """A new folder beside ``place`` that is renamed to it when the block ends without an error.

    What was at ``place`` is replaced. A process that is killed leaves a hidden folder, which the next one to
    write the same place removes (or moves back, if it was killed between the two renames).

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    staging = place.with_name(f".{place.name}.{_PARTIAL}-{os.getpid()}")
    replaced = place.with_name(f".{place.name}.{_REPLACED}-{os.getpid()}")
    created = [parent for parent in (place.parent, *place.parent.parents) if not parent.exists()]
    done = False
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_after_killed(place)
        staging.mkdir()
        yield staging
        if place.exists():
            os.rename(place, replaced)
        os.rename(staging, place)
        done = True
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise OutputError(
            f"{place} cannot be written: {why}", hint="choose another folder with -o; nothing was left there"
        ) from error
    finally:
        if not done:
            shutil.rmtree(staging, ignore_errors=True)
            if replaced.exists() and not place.exists():
                os.rename(replaced, place)
            for parent in created:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # only where it is empty


def _clean_up_after_killed(place: Path) -> None:
    for leftover in place.parent.glob(f".{place.name}.*-*"):
        kind, _, pid = leftover.name.rpartition(".")[2].partition("-")
        if kind not in (_PARTIAL, _REPLACED) or not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        if kind == _REPLACED and not place.exists():
            os.rename(leftover, place)
        else:
            shutil.rmtree(leftover, ignore_errors=True)
