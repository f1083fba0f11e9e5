"""What the page says, before it is a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecnn.report.explain import Explanation

Tone = Literal["good", "caution", "problem", "open"]
"""How a verdict turned out; ``open`` where nobody has looked."""
Cell = str | int | float | None
_WORST_FIRST: tuple[Tone, ...] = ("problem", "caution", "open", "good")


@dataclass(frozen=True)
class Table:
    """Rows under column names; numbers are set to the right with four digits, None leaves a cell empty."""

    columns: tuple[str, ...]
    """Names of the columns, with their units."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells as columns each."""
    chosen: frozenset[int] = frozenset()
    """Numbers of the rows that stand out."""
    caption: str = ""
    """One sentence on what it shows."""


@dataclass(frozen=True)
class Verdict:
    """One question about the file, and its answer."""

    title: str
    """What it is about: ``Portability``."""
    tone: Tone
    """How it turned out."""
    sentence: str
    """The answer in one or two sentences; the page sees to the first capital and the last full stop."""
    details: tuple[str, ...] = ()
    """More sentences, for a section of its own."""
    tables: tuple[Table, ...] = ()
    """What the answer rests on."""


@dataclass(frozen=True)
class Figure:
    """One number to see at once."""

    value: str
    """With its unit: ``22.0 dB``."""
    meaning: str
    """What it is, in a few words."""


@dataclass(frozen=True)
class Report:
    """Everything that is said about one int8 file."""

    title: str
    """The network: ``mobilenet_v2-1.0-224``."""
    subtitle: str
    """What it was made into: ``int8 for tflite``."""
    verdicts: tuple[Verdict, ...]
    """In the order in which they are read."""
    figures: tuple[Figure, ...] = ()
    """In the order of their weight."""
    explanation: Explanation | None = None
    """Layers, and images whose class changed."""
    checks: tuple[str, ...] = ()
    """One line about each comparison that held."""
    facts: tuple[tuple[str, str], ...] = ()
    """How it was made: names and values."""
    trained: bool = True
    """Whether the weights have learnt anything."""

    @property
    def tone(self) -> Tone:
        """That of the worst verdict."""
        tones = {verdict.tone for verdict in self.verdicts}
        return next((tone for tone in _WORST_FIRST if tone in tones), "open")

    @property
    def headline(self) -> str:
        """Whether the file can be trusted, in one sentence."""
        if not self.verdicts:
            return "Nothing was looked at."
        if self.tone == "problem":
            return "Do not ship this file yet."
        if not self.trained:
            return "Right arithmetic, untrained weights: use it for latency only."
        if self.tone == "caution":
            return "This file can be used, with care."
        if self.tone == "open":
            return f"Sound so far; not measured yet: {', '.join(v.title.lower() for v in self.reasons)}."
        return "This file can be trusted."

    @property
    def reasons(self) -> tuple[Verdict, ...]:
        """The verdicts that decide the headline; none where all is good."""
        return tuple(v for v in self.verdicts if v.tone == self.tone) if self.tone != "good" else ()
