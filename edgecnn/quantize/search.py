"""Ways to quantise one network, compared on images and on the target that will run it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgecnn.errors import EdgeCNNError
from edgecnn.graph.graph import Graph
from edgecnn.progress import Progress, silent
from edgecnn.quantize.equalize import pairs
from edgecnn.quantize.judge import Judge, Judged
from edgecnn.quantize.quantize import Prepared
from edgecnn.quantize.race import Race, Raced
from edgecnn.quantize.scheme import ESTIMATORS, Scheme

_MOST_IMAGES = 500
# Of rows whose accuracy and latency cannot be told apart, the first is left only for so much.
_WORTH_DB = 0.1


@dataclass(frozen=True)
class Tried:
    """One way to quantise, and what came of it."""

    name: str
    """What is other than in the first row."""
    scheme: Scheme
    judged: Judged | None
    """On the images; None where the target refuses the graph."""
    raced: Raced | None
    """Its latency beside the first row's; None where nothing was timed."""
    refused: str | None
    """Why the target refuses it."""
    on_front: bool
    """Whether no other row is clearly better in accuracy or latency without being worse in the other."""

    @property
    def accuracy(self) -> float:
        """Share of right answers, or without labels of answers that are the float graph's, from 0 to 1."""
        if self.judged is None:
            return 0.0
        return self.judged.agreement if self.judged.top1 is None else self.judged.top1

    @property
    def sqnr_db(self) -> float:
        """Power of the float outputs over the power of the difference."""
        return -math.inf if self.judged is None else self.judged.sqnr_db

    @property
    def latency(self) -> float:
        """Latency over the first row's; 1 where they cannot be told apart."""
        return 1.0 if self.raced is None or not self.raced.differs else self.raced.ratio

    def to_json(self) -> dict[str, Any]:
        """A plain dict; the scheme's sets are sorted lists."""
        return {
            "name": self.name,
            "scheme": self.scheme.to_json(),
            "judged": None if self.judged is None else self.judged.to_json(),
            "latency": None if self.raced is None else asdict(self.raced),
            "refused": self.refused,
            "on_front": self.on_front,
        }


@dataclass(frozen=True)
class Searched:
    """The table of a search, and the row that was chosen."""

    rows: tuple[Tried, ...]
    """In the order in which they were tried; the first is where the search began."""
    chosen: Tried
    """One of ``rows``."""
    sentence: str
    """Why it was chosen, without a full stop."""
    complete: bool
    """False where time ran out."""
    graph: Graph = field(repr=False)
    """The int8 graph of the chosen row."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the manifest."""
        return {
            "chosen": self.chosen.name,
            "verdict": self.sentence,
            "complete": self.complete,
            "rows": [row.to_json() for row in self.rows],
        }


def search(
    prepared: Prepared,
    judge: Judge,
    race: Race | None = None,
    *,
    scheme: Scheme | None = None,
    complete: Callable[[Scheme], Scheme] = lambda scheme: scheme,
    time_budget_s: float = math.inf,
    progress: Progress = silent,
) -> Searched:
    """Try schemes that differ from the first in one thing, then what helped together, and on from there.

    What is faster on the target is a new start from which the rest is tried again: with one scale a tensor,
    weights want other ranges than with one a channel. Calibration is shared by all; a scheme takes what
    ``judge`` takes for its images, of which at most 500 are used, evenly spread. Latency is timed once for
    the schemes that a runtime executes alike.

    Accuracy decides; of what the images cannot tell apart, within one standard error of the most accurate,
    latency; and of what that cannot tell apart either, the signal-to-quantisation-noise ratio.

    Args:
        prepared: the calibrated network.
        judge: images that calibration has not seen, with labels or without.
        race: times two int8 graphs on the target in turns; None to judge accuracy alone.
        scheme: where to begin; None for what ``prepare`` settled on.
        complete: adds what follows from a scheme, such as the layers that have to be made portable.
        time_budget_s: seconds from now; the first scheme is judged in any case.
        progress: told how far each judgement is.

    Raises:
        EdgeCNNError: the first scheme cannot be compiled or judged.
    """
    until = time.monotonic() + time_budget_s
    if len(judge.expected) > _MOST_IMAGES:
        step = len(judge.expected) / _MOST_IMAGES
        judge = judge.of({int(index * step) for index in range(_MOST_IMAGES)})
    first = complete((scheme or prepared.scheme).filled(prepared.scheme))
    found = _Search(prepared, judge, race, first, complete, until, progress)
    found.run()
    rows = _with_front(list(found.rows.values()))
    chosen = _choose(rows)
    return Searched(tuple(rows), chosen, _sentence(rows, chosen), found.complete, prepared.qdq(chosen.scheme))


class _Search:
    """The rows so far."""

    def __init__(
        self,
        prepared: Prepared,
        judge: Judge,
        race: Race | None,
        first: Scheme,
        complete: Callable[[Scheme], Scheme],
        until: float,
        progress: Progress,
    ) -> None:
        self.rows: dict[Scheme, Tried] = {}
        self.complete = True
        self._prepared, self._judge, self._race, self._first = prepared, judge, race, first
        self._complete, self._until, self._progress = complete, until, progress
        self._raced: dict[tuple[object, ...], Raced | None] = {}

    def run(self) -> None:
        """Judge the first scheme, its neighbours, and what is faster with its own neighbours."""
        start = self._try(self._first)
        assert start is not None
        self._climb(start)
        for row in [row for row in self.rows.values() if row.latency < 1]:
            self._climb(row)

    def _climb(self, start: Tried) -> None:
        """Go on from what was found as long as it is better."""
        while (best := self._improve(start)) is not start:
            start = best

    def _improve(self, start: Tried) -> Tried:
        """Try one thing after the other, then those that helped together, the most helpful first."""
        neighbours = [(name, self._try(scheme)) for name, scheme in self._neighbours(start.scheme)]
        helped = [(name, row) for name, row in neighbours if row is not None and _helps(row, start)]
        best = start
        for name, row in sorted(helped, key=lambda entry: -entry[1].sqnr_db):
            joined = replace(best.scheme, **{name: getattr(row.scheme, name)})
            together = self._try(joined)
            if together is not None and _helps(together, best):
                best = together
        return best

    def _neighbours(self, scheme: Scheme) -> Iterator[tuple[str, Scheme]]:
        """Schemes that differ in one thing, each with the name of its field."""
        changes: list[tuple[str, Any]] = [("ranges", ranges) for ranges in ESTIMATORS]
        changes += [("bias_correction", not scheme.bias_correction)]
        changes += [("equalize", not scheme.equalize)] if pairs(self._prepared.convs) else []
        if scheme.float_layers == self._first.float_layers and scheme.per_channel == self._first.per_channel:
            changes += [("per_channel", not scheme.per_channel), ("symmetric", not scheme.symmetric)]
            changes += [("weight_bits", 15 - scheme.weight_bits)]
        for name, value in changes:
            changed = replace(scheme, **{name: value})
            if changed != scheme:
                yield name, changed

    def _try(self, scheme: Scheme) -> Tried | None:
        """The scheme's row; None where time has run out."""
        scheme = self._complete(scheme)
        if scheme in self.rows:
            return self.rows[scheme]
        if self.rows and time.monotonic() >= self._until:
            self.complete = False
            return None
        name = scheme.differences(self._first)
        judged, raced, refused = None, None, None
        try:
            graph = self._prepared.qdq(scheme)
            until = self._until if self.rows else math.inf
            judged = self._judge(graph, until=until, progress=self._progress, what=f"judging {name}")
            if judged is None:
                self.complete = False
                return None
            raced = self._latency(scheme, graph)
        except EdgeCNNError as error:
            if not self.rows:
                raise
            judged, refused = None, str(error)
        self.rows[scheme] = Tried(name, scheme, judged, raced, refused, on_front=False)
        return self.rows[scheme]

    def _latency(self, scheme: Scheme, graph: Graph) -> Raced | None:
        """What schemes of this kind take beside the first; timed once a kind."""
        kind = (scheme.per_channel, scheme.symmetric, scheme.float_layers)
        if not self.rows:
            self._raced[kind] = None
        elif kind not in self._raced and self._race is not None:
            self._progress("timing", 0, None)
            self._raced[kind] = self._race(self._prepared.qdq(self._first), graph)
        return self._raced.get(kind)


def _helps(row: Tried, than: Tried) -> bool:
    better = row.accuracy >= than.accuracy and row.sqnr_db > than.sqnr_db + _WORTH_DB
    return row.judged is not None and better


def _with_front(rows: list[Tried]) -> list[Tried]:
    judged = [row for row in rows if row.judged is not None]
    error = _error(max(judged, key=lambda row: row.accuracy))

    def beaten(row: Tried) -> bool:
        return any(
            other.accuracy >= row.accuracy
            and other.latency <= row.latency
            and (other.accuracy > row.accuracy + error or other.latency < row.latency)
            for other in judged
        )

    return [replace(row, on_front=row.judged is not None and not beaten(row)) for row in rows]


def _choose(rows: list[Tried]) -> Tried:
    judged = [row for row in rows if row.judged is not None]
    best = max(judged, key=lambda row: row.accuracy)
    accurate = [row for row in judged if row.accuracy >= best.accuracy - _error(best)]
    fastest = min(row.latency for row in accurate)
    alike = [row for row in accurate if row.latency == fastest]
    cleanest = max(alike, key=lambda row: row.sqnr_db)
    return rows[0] if rows[0] in alike and cleanest.sqnr_db < rows[0].sqnr_db + _WORTH_DB else cleanest


def _error(row: Tried) -> float:
    """The standard error of a share, at least that of one image."""
    assert row.judged is not None
    count, share = row.judged.images, row.accuracy
    return max(math.sqrt(share * (1 - share) / count), 1 / count)


def _sentence(rows: list[Tried], chosen: Tried) -> str:
    first = rows[0]
    assert chosen.judged is not None
    measure = "agreement" if chosen.judged.top1 is None else "top-1"
    figures = f"{measure} {chosen.accuracy:.1%} and {chosen.sqnr_db:.1f} dB on {chosen.judged.images} images"
    tried = f"{len(rows) - 1} others"
    if len(rows) == 1:
        return f"the first scheme stays, with {figures}: there was no time to try others"
    if chosen is first:
        return f"the first scheme stays, with {figures}: of the {tried} none is clearly better or faster"
    before = f"against {first.accuracy:.1%} and {first.sqnr_db:.1f} dB"
    if chosen.latency < first.latency:
        kept = (
            "as accurate as the images can tell" if chosen.accuracy < first.accuracy else "no less accurate"
        )
        return f"{chosen.name}: {chosen.latency:.2f} times the latency and {kept}, {figures} {before}"
    if chosen.latency > first.latency:
        return f"{chosen.name}: more accurate at {chosen.latency:.2f} times the latency, {figures} {before}"
    if chosen.accuracy > first.accuracy + _error(chosen):
        return f"{chosen.name}: more accurate at the same latency, {figures} {before}"
    alike = "as accurate as the images can tell" if chosen.accuracy < first.accuracy else "the same accuracy"
    return f"{chosen.name}: {alike} at the same latency with less noise, {figures} {before}"
