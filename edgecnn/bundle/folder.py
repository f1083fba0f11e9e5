"""A folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from edgecnn.bundle.write import read_manifest
from edgecnn.errors import ConfigError, OutputError

_PARTIAL, _REPLACED = "partial", "replaced"
# What systems and interpreters put into any folder, and nobody misses.
_LITTER = {"__pycache__", ".DS_Store", "Thumbs.db"}
# Start times of processes are computed from the boot time, which the kernel gives in whole seconds.
_CLOCK_S = 2.0


def check_place(place: Path, *, force: bool) -> None:
    """Refuse a place that cannot be written, before any work is done for it.

    Nothing is created, but what a killed process left is put in order: its half-made folder goes, and a
    bundle that it was about to replace comes back.

    Raises:
        ConfigError: a bundle is there and ``force`` is not set, or something else is there, which ``force``
            does not replace either.
        OutputError: the folder above cannot be created or written.
    """
    try:
        _clean_up_after_killed(place)
        _check_free(place, force=force)
        parent = place.parent
        while not os.path.lexists(parent):
            parent = parent.parent
        if not parent.is_dir():
            raise OutputError(
                f"{parent} is not a folder, so nothing can be written below it",
                hint="choose another -o folder",
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"{parent} cannot be written", hint="choose another -o folder, or change its permissions"
            )
    except OSError as error:
        raise _unwritable(place, error) from error


@contextlib.contextmanager
def staged(place: Path, *, force: bool) -> Iterator[Path]:
    """A new folder beside ``place`` that is renamed to it when the block ends without an error.

    With ``force`` a bundle at ``place`` is replaced. However the block ends, what was there before is there
    still, or the whole new folder is. A process that is killed leaves a hidden folder, which `check_place`
    removes the next time.

    Raises:
        ConfigError: something came to be at ``place`` meanwhile that may not be replaced.
        OutputError: the folder cannot be written, or the disk is full.
    """
    mine = f"{os.getpid()}-{secrets.token_hex(4)}"
    staging = place.with_name(f".{place.name}.{_PARTIAL}-{mine}")
    replaced = place.with_name(f".{place.name}.{_REPLACED}-{mine}")
    created = [parent for parent in place.parents if not parent.exists()]
    try:
        staging.mkdir(parents=True)
        yield staging
        _check_free(place, force=force)
        if place.exists():
            os.rename(place, replaced)
        os.rename(staging, place)
    except OSError as error:
        raise _unwritable(place, error) from error
    finally:
        if staging.exists():
            _put_back(replaced, place)
        else:
            _remove(replaced)
        _remove(staging)
        if not place.exists():
            for parent in created:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # only where it is empty


def _put_back(replaced: Path, place: Path) -> None:
    """Undo the first of the two renames, if it was made."""
    try:
        os.rename(replaced, place)
    except FileNotFoundError:
        return
    except OSError as error:
        # Another process has filled the place meanwhile; on any other error the old bundle stays hidden, and
        # the next `check_place` tries again.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            _remove(replaced)


def _check_free(place: Path, *, force: bool) -> None:
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if place.is_symlink():
            raise ConfigError(f"{place} is a symbolic link")
        known = {*read_manifest(place)["files"], "manifest.json", *_LITTER}
    except ConfigError as error:
        raise ConfigError(
            f"{place} exists and is not a bundle",
            hint="edgecnn replaces only what it has written: move it away, or choose another -o folder",
        ) from error
    # The owner's notes would go with the folder.
    if strangers := sorted(path.name for path in place.iterdir() if path.name not in known):
        raise ConfigError(
            f"{place} exists and holds files that edgecnn did not write: {', '.join(strangers[:3])}",
            hint="move them away, or choose another -o folder",
        )
    if not force:
        raise ConfigError(
            f"{place} exists already", hint="pass --force to replace it, or -o for another folder"
        )


def _clean_up_after_killed(place: Path) -> None:
    if not place.parent.is_dir():
        return
    for leftover in sorted(place.parent.iterdir()):
        if not leftover.name.startswith(f".{place.name}."):
            continue
        kind, *rest = leftover.name.removeprefix(f".{place.name}.").split("-")
        if kind not in (_PARTIAL, _REPLACED) or len(rest) != 2 or not rest[0].isdigit():
            continue
        if not _abandoned(leftover, int(rest[0])):
            continue
        if kind == _REPLACED and not place.exists():
            os.rename(leftover, place)
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _abandoned(leftover: Path, pid: int) -> bool:
    try:
        started = float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    # The number may have been given to another process since; in a fresh container, to this very one.
    return started > leftover.stat().st_mtime + _CLOCK_S


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _unwritable(place: Path, error: OSError) -> OutputError:
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full"
    # A full temporary folder is not the output's fault.
    elsewhere = str(error.filename or "")
    if elsewhere and place.name not in elsewhere:
        why = f"{elsewhere}: {why}"
    return OutputError(
        f"{place} cannot be written: {why}", hint="choose another folder with -o; nothing was left there"
    )
