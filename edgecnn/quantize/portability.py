"""What an int8 graph loses where products saturate, as on x86 CPUs without VNNI."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgecnn.data.sets import Images
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import Operator, operators
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.quantize.saturation import KERNELS, Pairs, excess_name, saturable, saturating
from edgecnn.sqnr import decibel

HARMLESS_DB = 0.5
"""A loss of SQNR below this is what two sets of calibration images differ by."""
_IMAGES = 8
_NAMED = 3


@dataclass(frozen=True)
class SaturatingLayer:
    """One layer with pairs of weights that some input saturates."""

    name: str
    """The node's name."""
    pairs: int
    """How many pairs some input saturates."""
    of: int
    """How many pairs there are."""
    touched: float
    """Share of its output values that lose something on the images, from 0 to 1."""
    mean_steps: float
    """Mean loss of an output value, in steps of the output's scale, before it is quantised."""


@dataclass(frozen=True)
class Portability:
    """Whether one int8 graph computes the same on an x86 CPU with VNNI and on one without."""

    runtime: str
    """Whose kernels it is about."""
    layers: tuple[SaturatingLayer, ...]
    """Those with pairs that can saturate, in execution order; none where every CPU computes the same."""
    images: int
    """How many images the figures below come from; 0 where nothing can saturate."""
    sqnr_db: float | None
    """The QDQ graph against the float graph."""
    saturated_sqnr_db: float | None
    """What is left of it without VNNI."""
    agreement: float | None
    """Share of the images to which the QDQ graph gives the float graph's class, from 0 to 1."""
    saturated_agreement: float | None
    """The same without VNNI."""

    @property
    def loss_db(self) -> float:
        """What SQNR falls by without VNNI."""
        if self.sqnr_db is None or self.saturated_sqnr_db is None or self.sqnr_db == self.saturated_sqnr_db:
            return 0.0
        return self.sqnr_db - self.saturated_sqnr_db

    @property
    def portable(self) -> bool:
        """Whether nothing is lost that matters."""
        return self.loss_db < HARMLESS_DB

    @property
    def sentence(self) -> str:
        """The verdict, without a full stop."""
        if self.runtime not in KERNELS:
            return f"every CPU computes the same: {self.runtime} widens int8 before it multiplies"
        if not self.layers:
            return "every x86 CPU computes the same, with VNNI or without: no pair of products can saturate"
        assert self.agreement is not None
        assert self.saturated_agreement is not None
        figures = (
            f"SQNR {_db(self.saturated_sqnr_db)} in place of {_db(self.sqnr_db)} dB, the float graph's class "
            f"on {self.saturated_agreement * self.images:.0f} in place of {self.agreement * self.images:.0f} "
            f"of {self.images} images"
        )
        where = f"in {self.runtime} on x86 CPUs without VNNI"
        if self.portable:
            return f"products can saturate {where}, which costs little: {figures}"
        worst = sorted(self.layers, key=lambda layer: -layer.mean_steps)[:_NAMED]
        names = ", ".join(layer.name for layer in worst)
        return f"products saturate {where}: {figures}; most in {names}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the manifest."""
        fields = {key: _finite(value) for key, value in asdict(self).items()}
        fields["layers"] = [asdict(layer) for layer in self.layers]
        return {**fields, "portable": self.portable, "verdict": self.sentence}


def portability(graph: Graph, qdq: Graph, images: Images, runtime: str) -> Portability:
    """Run the QDQ graph as a CPU without VNNI would.

    Args:
        graph: the canonical fp32 graph.
        qdq: the int8 graph made of it.
        images: inputs (1, C, H, W), best such that calibration has not seen; the first 8 are looked at.
        runtime: what will run it.
    """
    kernels = KERNELS.get(runtime)
    pairs = saturable(qdq, kernels) if kernels else {}
    if kernels is None or not pairs:
        return Portability(runtime, (), 0, None, None, None, None)
    return _measure(graph, qdq, pairs, itertools.islice(images, _IMAGES), runtime)


def saturating_layers(qdq: Graph, runtimes: Iterable[str]) -> frozenset[str]:
    """The layers whose weights must be made safe, so that the CPU does not matter to any of the runtimes.

    The names are for ``Scheme.portable_layers``.
    """
    kernels = {KERNELS[runtime] for runtime in runtimes if runtime in KERNELS}
    return frozenset(name for each in kernels for name in saturable(qdq, each))


def _measure(
    graph: Graph,
    qdq: Graph,
    pairs: dict[str, Pairs],
    images: Iterable[np.ndarray],
    runtime: str,
) -> Portability:
    exact, quantized = load_reference(graph, fused=True), load_reference(qdq)
    names = list(pairs)
    saturated = _tapped(saturating(qdq, pairs), names)
    steps = {operator.name: _output_steps(operator) for operator in operators(qdq) if operator.name in pairs}
    count = agree = saturated_agree = 0
    signal = noise = saturated_noise = 0.0
    touched, lost = np.zeros(len(names)), np.zeros(len(names))
    for image in images:
        expected, got = exact(image)[0], quantized(image)[0]
        without, *excesses = saturated(image)
        signal += float(np.square(expected).sum())
        noise += float(np.square(expected - got).sum())
        saturated_noise += float(np.square(expected - without).sum())
        agree += int(expected.argmax() == got.argmax())
        saturated_agree += int(expected.argmax() == without.argmax())
        for index, (name, excess) in enumerate(zip(names, excesses, strict=True)):
            by_channel = np.abs(excess.reshape(len(steps[name]), -1))  # one image: channels first
            touched[index] += np.count_nonzero(by_channel) / excess.size
            lost[index] += by_channel.sum(axis=1) @ steps[name] / excess.size
        count += 1
    layers = tuple(
        SaturatingLayer(name, len(pairs[name]), pairs[name].of, float(share / count), float(loss / count))
        for name, share, loss in zip(names, touched, lost, strict=True)
    )
    return Portability(
        runtime,
        layers,
        count,
        decibel(signal, noise),
        decibel(signal, saturated_noise),
        agree / count,
        saturated_agree / count,
    )


def _tapped(graph: Graph, layers: list[str]) -> Runner:
    """Gives the graph's output, then what each layer's sums lose."""
    return load_reference(graph, [str(graph.output.name), *map(excess_name, layers)])


def _output_steps(operator: Operator) -> np.ndarray:
    """Steps of the output's scale that one unit of each channel's integer sum is."""
    x, weight = operator.inputs[:2]
    output = operator.outputs[0]
    assert x is not None
    assert weight is not None
    assert x.scale is not None
    assert weight.scale is not None
    assert output.scale is not None
    steps: np.ndarray = np.broadcast_to(x.scale * weight.scale / output.scale, weight.shape[:1])
    return steps


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _finite(value: object) -> object:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
