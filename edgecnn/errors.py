"""Every error that edgecnn raises on purpose: one line that says what is wrong, one that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecnn.artifact import Artifact


def one_line(error: BaseException | str, length: int = 200) -> str:
    """What a library's error says, on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


class EdgeCNNError(Exception):
    """The base of all expected failures.

    ``str(error)`` is one line. ``hint`` is what the user can do next. ``exit_code`` is what the command
    line exits with: 2 where the request itself is wrong, 1 where carrying it out failed, 3 where a budget
    could not be met.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(EdgeCNNError):
    """The request names something that does not exist or cannot be."""

    exit_code = 2


class MissingDependency(EdgeCNNError):
    """A runtime or tool that the request needs is not installed; the hint names the extra to install."""


class WeightsError(EdgeCNNError):
    """Weights cannot be fetched, read or loaded into the model that asked for them."""


class DataError(EdgeCNNError):
    """Images that are missing, unreadable or unsafe to decode."""


class ConversionError(EdgeCNNError):
    """A graph holds something that a stage cannot convert, named by operator and node."""


class ParityError(EdgeCNNError):
    """A stage's result differs from what it was made from by more than its limit."""


class BudgetError(EdgeCNNError):
    """The best that was found does not meet the accuracy asked for; it is kept, and named as such.

    ``artifacts`` are all that were made.
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None, artifacts: Sequence[Artifact] = ()) -> None:
        super().__init__(message, hint=hint)
        self.artifacts = list(artifacts)


class DeviceError(EdgeCNNError):
    """A device could not carry out a measurement."""


class OutputError(EdgeCNNError):
    """Results cannot be written where they were asked for."""


def last_line(text: str, otherwise: str = "no message") -> str:
    """The last line that says something, in which programs say why they failed."""
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), otherwise)
