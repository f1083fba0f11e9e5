"""How long work tells its caller how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, float | None], None]
"""Called with what is being done, how much of it is done, and the total (None where it is not known)."""


def silent(description: str, done: float, total: float | None) -> None:
    """Report nothing."""
