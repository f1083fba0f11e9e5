"""The accuracy guard: layers of an int8 graph returned to float until a budget holds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgecnn.cost import LayerCost, analyze
from edgecnn.errors import ConfigError
from edgecnn.graph.graph import Graph
from edgecnn.progress import Progress, silent
from edgecnn.quantize.judge import Judge, Judged
from edgecnn.quantize.order import Step, order
from edgecnn.quantize.quantize import Prepared
from edgecnn.quantize.scheme import Scheme
from edgecnn.quantize.sensitivity import Noise, layers_of, measure

# Roundings are measured on so many images, in at most this share of the time.
_FEW = 16
_MEASURING_SHARE = 0.4
# What a value read or written costs in float beyond int8, in multiply-accumulates: depthwise convolutions,
# additions and what lies between float and int8 take far longer than their arithmetic says. With the first
# two convolutions of MobileNetV2 in float, TFLite loses 4 % of what int8 gains, ONNX Runtime 28 %.
_MACS_A_VALUE = 32


@dataclass(frozen=True)
class Budget:
    """How much an int8 graph may lose."""

    max_drop: float | None = None
    """Points of top-1 below the float graph."""
    min_agreement: float | None = None
    """Share of the images with the float graph's top-1, from 0 to 1."""

    def __post_init__(self) -> None:
        if self.max_drop is None and self.min_agreement is None:
            raise ConfigError("the accuracy guard has no budget", hint="give --max-drop or --min-agreement")
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise ConfigError(
                f"--max-drop {self.max_drop:g} is not from 0 to below 100 points of top-1",
                hint="such as 0.5, half a point",
            )
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise ConfigError(
                f"--min-agreement {self.min_agreement:g} is not between 0 and 1",
                hint="0.98 asks for the float network's class on 98 % of the images",
            )

    def excess(self, judged: Judged, top1: float | None) -> float:
        """Points by which it is exceeded, 0 where it holds; ``top1`` is the float graph's."""
        excess = 0.0
        if self.max_drop is not None:
            assert top1 is not None
            assert judged.top1 is not None
            excess = max(excess, 100 * (top1 - judged.top1) - self.max_drop)
        if self.min_agreement is not None:
            excess = max(excess, 100 * (self.min_agreement - judged.agreement))
        return excess if excess > 1e-9 else 0.0


@dataclass(frozen=True)
class Sensitivity:
    """What one layer costs and what its roundings do, alone."""

    layer: str
    """Its node's name."""
    macs_share: float
    """Its multiply-accumulates over the network's."""
    weights_noise: float
    """Share of the noise of all roundings that is of its weights."""
    output_noise: float
    """Share of the noise of all roundings that is of its output."""


@dataclass(frozen=True)
class Returned:
    """Layers that were returned to float together."""

    layers: tuple[str, ...]
    """Their nodes' names."""
    macs_share: float
    """Their multiply-accumulates over the network's."""
    alone: Judged | None
    """With only these in float, on the few images of the sensitivity; None where time ran out."""
    after: Judged | None
    """With these and all in the rows above in float, on all images; None where time ran out."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "layers": list(self.layers),
            "macs_share": self.macs_share,
            "alone": None if self.alone is None else self.alone.to_json(),
            "after": None if self.after is None else self.after.to_json(),
        }


@dataclass(frozen=True)
class Guarded:
    """The int8 graph that the guard settled on."""

    graph: Graph = field(repr=False)
    """Of ``scheme``."""
    scheme: Scheme
    """With the layers that compute in float."""
    budget: Budget
    """What was asked."""
    met: bool
    """Whether ``reached`` holds the budget."""
    complete: bool
    """False where time ran out before the search for fewer layers was done."""
    float_top1: float | None
    """The float graph's share of right answers; None without labels."""
    before: Judged
    """With all layers in int8."""
    reached: Judged
    """Of ``graph``."""
    macs_share: float
    """Multiply-accumulates of the layers in float over the network's."""
    rows: tuple[Returned, ...]
    """The layers in float, in the order in which they were returned."""
    sensitivity: tuple[Sensitivity, ...] = field(repr=False)
    """Of all layers, in execution order; empty where the budget held from the start."""

    @property
    def summary(self) -> str:
        """One sentence."""
        count = sum(len(row.layers) for row in self.rows)
        result = "holds" if self.met else "is not met"
        figures = f"agreement {self.reached.agreement:.2%}"
        if self.reached.top1 is not None and self.float_top1 is not None:
            drop = 100 * (self.float_top1 - self.reached.top1)
            figures = f"top-1 {self.reached.top1:.2%} ({drop:+.2f} points lost), {figures}"
        layers = (
            f"{count} layers in float ({self.macs_share:.1%} of the MACs)" if count else "all layers in int8"
        )
        return f"the budget {result} with {layers}: {figures} on {self.reached.images} images"

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the manifest; the scheme is recorded apart."""
        return {
            "max_drop": self.budget.max_drop,
            "min_agreement": self.budget.min_agreement,
            "complete": self.complete,
            "float_top1": self.float_top1,
            "before": self.before.to_json(),
            "reached": self.reached.to_json(),
            "macs_share": self.macs_share,
            "returned": [row.to_json() for row in self.rows],
            "sensitivity": [asdict(layer) for layer in self.sensitivity],
        }


def guard(
    prepared: Prepared,
    judge: Judge,
    budget: Budget,
    *,
    scheme: Scheme | None = None,
    costs: Mapping[str, float] | None = None,
    time_budget_s: float = math.inf,
    progress: Progress = silent,
) -> Guarded:
    """Return layers to float, the most useful for their cost first, until the budget holds.

    The noise of every rounding is measured alone (``edgecnn.quantize.sensitivity``), layers are put in order
    by it (``edgecnn.quantize.order``), and the least part of the order that holds the budget is looked for by
    halving, each time on all images. Then layers are taken back to int8, the costliest first, as far as the
    budget still holds. Every figure is written into the judge's journal at once: called again
    with the same network and images, the guard goes on where it was ended.

    Args:
        prepared: the calibrated network.
        judge: images that calibration has not seen, with labels unless only agreement is asked.
        budget: what must hold.
        scheme: how to quantise; None for what ``prepare`` settled on. Its own layers in float stay so.
        costs: of each layer in float, by node, in any unit; None for an estimate from arithmetic and memory.
        time_budget_s: seconds from now; the graph with no more layers in float is judged in any case.
        progress: told how far it is.

    Returns:
        The best that was found: of those that hold the budget the cheapest, else the nearest to it.

    Raises:
        ConfigError: ``max_drop`` without labels.
        OutputError: the journal cannot be written.
    """
    until = time.monotonic() + time_budget_s
    if budget.max_drop is not None and judge.labels is None:
        raise ConfigError(
            "--max-drop counts right answers, and the images have no labels",
            hint="use --min-agreement, or --data with labels",
        )
    scheme = scheme or prepared.scheme
    return _Search(prepared, scheme, budget, judge, costs, until, time_budget_s, progress).run()


class _OutOfTime(Exception):
    """The time budget has passed."""


class _Search:
    """One run of the guard."""

    def __init__(
        self,
        prepared: Prepared,
        scheme: Scheme,
        budget: Budget,
        judge: Judge,
        costs: Mapping[str, float] | None,
        until: float,
        time_budget_s: float,
        progress: Progress,
    ) -> None:
        self._prepared, self._scheme, self._budget = prepared, scheme, budget
        self._judge = judge
        self._until, self._time_budget_s, self._progress = until, time_budget_s, progress
        layers: dict[str, LayerCost] = {layer.name: layer for layer in analyze(prepared.convs).layers}
        total = sum(layer.macs for layer in layers.values()) or 1
        self._macs_share = {name: layer.macs / total for name, layer in layers.items()}
        self._cost = costs or {
            name: layer.macs + _MACS_A_VALUE * (layer.read.fp32 + layer.written.fp32) / 4
            for name, layer in layers.items()
        }
        self._few = _spread(len(judge.expected), _FEW)
        self._best: tuple[float, float, tuple[Step, ...]] = (math.inf, math.inf, ())

    def run(self) -> Guarded:
        before = self._judged((), until=math.inf)
        sensitivity: tuple[Sensitivity, ...] = ()
        complete = True
        if self._excess(before):
            try:
                noise = self._noise()
                # What was not measured is taken for the mean of what was: good for an order, not for a table.
                sensitivity = tuple(self._sensitivity(noise)) if noise.complete else ()
                self._take_back(self._least(self._order(noise)))
            except _OutOfTime:
                complete = False
        _, _, steps = self._best
        reached = self._judged(steps)
        scheme = self._with(steps)
        returned = scheme.float_layers - self._scheme.float_layers
        return Guarded(
            graph=self._prepared.qdq(scheme),
            scheme=scheme,
            budget=self._budget,
            met=not self._excess(reached),
            complete=complete,
            float_top1=self._judge.top1,
            before=before,
            reached=reached,
            macs_share=self._share(returned),
            rows=tuple(self._rows(steps)),
            sensitivity=sensitivity,
        )

    def _noise(self) -> Noise:
        journal, int8 = self._judge.journal, self._prepared.qdq(self._scheme)
        return measure(
            self._prepared,
            self._scheme,
            [image for index, image in enumerate(self._judge.images) if index in self._few],
            known=journal.figures.setdefault(f"noise in {int8.digest}", {}),
            found=journal.save,
            until=min(self._until, time.monotonic() + _MEASURING_SHARE * self._time_budget_s),
            progress=self._progress,
        )

    def _sensitivity(self, noise: Noise) -> Iterator[Sensitivity]:
        total = noise.total or 1.0
        for node, last in layers_of(self._prepared.convs.model):
            name = str(node.name)
            of_output = sum(noise.tensors.get(str(output.name), 0.0) for output in last.outputs)
            yield Sensitivity(
                name, self._macs_share.get(name, 0.0), noise.weights.get(name, 0.0) / total, of_output / total
            )

    def _order(self, noise: Noise) -> list[Step]:
        """Steps without the layers that the scheme itself keeps in float."""
        own = self._scheme.float_layers
        steps = [
            replace(step, layers=tuple(name for name in step.layers if name not in own))
            for step in order(self._prepared.convs.model, noise, self._cost)
        ]
        return [step for step in steps if step.layers]

    def _least(self, steps: Sequence[Step]) -> list[Step]:
        """The shortest part of the order that holds the budget; empty where only the whole of it would.

        On few images an answer or two decide, and a longer part may fail where a shorter one holds: then
        every part is judged, the shortest first.
        """
        fails, holds = 0, len(steps)
        while holds - fails > 1:
            middle = (fails + holds) // 2
            if self._excess(self._judged(steps[:middle])):
                fails = middle
            else:
                holds = middle
        if holds < len(steps):
            return list(steps[:holds])
        for count in range(1, len(steps)):
            if not self._excess(self._judged(steps[:count])):
                return list(steps[:count])
        return []

    def _take_back(self, chosen: Sequence[Step]) -> None:
        """Judge the chosen steps without one of them, the costliest first, and without all that were not
        needed."""
        for step in sorted(chosen, key=lambda step: -step.cost):
            fewer = [other for other in chosen if other is not step]
            if not self._excess(self._judged(fewer)):
                chosen = fewer

    def _rows(self, steps: Sequence[Step]) -> Iterator[Returned]:
        for count, step in enumerate(steps, 1):
            after = alone = None
            try:
                after = self._judged(steps[:count], settles=False)
                alone = self._judged([step], few=True, settles=False)
            except _OutOfTime:
                pass
            yield Returned(step.layers, self._share(step.layers), alone, after)

    def _judged(
        self,
        steps: Sequence[Step],
        *,
        few: bool = False,
        settles: bool = True,
        until: float | None = None,
    ) -> Judged:
        """What is reached with these steps in float; ``settles`` makes it a candidate for the result."""
        scheme = self._with(steps)
        judge = self._judge.of(self._few) if few else self._judge
        count = sum(len(step.layers) for step in steps)
        judged = judge(
            self._prepared.qdq(scheme),
            until=self._until if until is None else until,
            progress=self._progress,
            what=f"judging with {count} layers in float" if count else "judging int8",
        )
        if judged is None:
            raise _OutOfTime
        if settles:
            candidate = (self._excess(judged), sum(step.cost for step in steps), tuple(steps))
            if candidate[:2] < self._best[:2]:
                self._best = candidate
        return judged

    def _excess(self, judged: Judged) -> float:
        return self._budget.excess(judged, self._judge.top1)

    def _with(self, steps: Sequence[Step]) -> Scheme:
        layers = frozenset(itertools.chain.from_iterable(step.layers for step in steps))
        return replace(self._scheme, float_layers=self._scheme.float_layers | layers)

    def _share(self, layers: Collection[str]) -> float:
        return sum(self._macs_share.get(name, 0.0) for name in layers)


def _spread(count: int, wanted: int) -> frozenset[int]:
    """So many of the first ``count`` numbers, evenly spread."""
    return frozenset(range(0, count, max(-(-count // wanted), 1)))
