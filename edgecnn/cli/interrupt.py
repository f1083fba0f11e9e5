"""Ctrl-C, a closed terminal and a polite kill all end a command alike: it cleans up, and exits with 130."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# Impatient fingers do not interrupt the cleaning up that the first signal began.
_DEAF_S = 5.0

_asked: list[float] = []
_waiting = False


def install() -> None:
    """Turn the signals that ask a process to end into ``KeyboardInterrupt``.

    One that is ignored stays ignored: that is what ``nohup`` and ``&`` in a script are for.
    """
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def asked() -> bool:
    """Whether a signal came."""
    return bool(_asked)


def raise_if_asked() -> None:
    """Raise again what a library may have swallowed.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if _asked:
        raise KeyboardInterrupt


@contextlib.contextmanager
def waits() -> Iterator[None]:
    """A signal that comes within waits for the end: some libraries abort where one meets their import.

    Raises:
        KeyboardInterrupt: one came.
    """
    global _waiting
    _waiting = True
    try:
        yield
    finally:
        _waiting = False
    raise_if_asked()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _asked and now - _asked[-1] < _DEAF_S:
        return
    _asked.append(now)
    if not _waiting:
        raise KeyboardInterrupt
