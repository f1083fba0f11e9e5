"""What int8 does to each layer: the noise in its output, and the range that its integers have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import FLOAT_ISLANDS, Operand, Operator, is_depthwise, operators
from edgecnn.graph.reference import load_reference
from edgecnn.quantize.balance import streams
from edgecnn.sqnr import decibel

_FORMS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# So many values of the float graph are in memory at once, and twice as many of the int8 graph: 240 MB.
# MobileNetV2 has 7 million at 224 pixels.
_VALUES = 20_000_000


@dataclass(frozen=True)
class Range:
    """What a quantised tensor's integers can hold, and what the network put into them."""

    low: float
    """Least value that the integers hold."""
    high: float
    """Largest value that the integers hold."""
    reached_low: float
    """Least value before it was quantised, within what a Relu or Clip lets through."""
    reached_high: float
    """Largest such value."""
    cut_off: float
    """Share of the values that lie more than half a step outside, from 0 to 1."""


@dataclass(frozen=True)
class Layer:
    """One layer of an int8 graph beside the same layer of the float graph."""

    name: str
    """The node's name."""
    op_type: str
    """ONNX's name of the operator."""
    shape: tuple[int, ...]
    """Of its output, as the graph has it (NCHW)."""
    form: Literal["int8", "int8, 7-bit weights", "float"]
    """What it computes in."""
    sqnr_db: float
    """Signal-to-quantisation-noise ratio of its output, with all noise from the layers before it."""
    lost_db: float
    """How far that is below the noisiest of its inputs; negative where noise is averaged out, 0 where the
    input is the image."""
    range: Range | None
    """Of its output; None where that stays float."""


def measure_layers(graph: Graph, qdq: Graph, images: Sequence[np.ndarray]) -> tuple[Layer, ...]:
    """Every layer of an int8 or mixed graph that the float graph has too, in execution order.

    Channels that quantisation may have scaled (``edgecnn.quantize.equalize``, ``edgecnn.quantize.balance``)
    are scaled back, each by the factor that brings it nearest to the float graph's; their range is that of
    the scaled channels.

    Args:
        graph: the canonical fp32 graph.
        qdq: the graph in which some or all layers are int8.
        images: inputs (1, C, H, W), at least one.
    """
    scaled = _scaled(graph)
    bounds = {op.outputs[0].name: op.activation or (-math.inf, math.inf) for op in operators(graph)}
    layers = {
        op.outputs[0].name: op
        for op in operators(qdq)
        if op.op_type not in _FORMS and op.outputs[0].name in bounds
    }
    tallies = {name: _Tally(op.outputs[0], bounds[name], name in scaled) for name, op in layers.items()}
    for names in _in_turns(layers):
        _fill({name: tallies[name] for name in names}, graph, qdq, images)
    found: dict[str, Layer] = {}
    for name, op in layers.items():
        tally = tallies[name]
        sources = [x.name.removesuffix(":dequantized") for x in op.inputs if x is not None]
        read = [found[source].sqnr_db for source in sources if source in found]
        sqnr_db = tally.sqnr_db
        lost_db = min(read) - sqnr_db if read and math.isfinite(sqnr_db) and math.isfinite(min(read)) else 0.0
        found[name] = Layer(
            op.name, op.op_type, op.outputs[0].shape, _form(op), sqnr_db, lost_db, tally.range
        )
    return tuple(found.values())


def _in_turns(layers: Mapping[str, Operator]) -> Iterator[list[str]]:
    """The layers' names in groups whose outputs together have ``_VALUES`` values or little more."""
    group: list[str] = []
    total = 0
    for name, op in layers.items():
        group.append(name)
        total += math.prod(op.outputs[0].shape)
        if total >= _VALUES:
            yield group
            group, total = [], 0
    if group:
        yield group


def _fill(tallies: Mapping[str, _Tally], graph: Graph, qdq: Graph, images: Sequence[np.ndarray]) -> None:
    last = str(qdq.output.name)
    after = [
        f"{name}:dequantized" if tally.held is not None and name != last else name
        for name, tally in tallies.items()
    ]
    # The graph's output has its name from the dequantised tensor.
    before = [f"{name}:float" if name == last and tally.held else name for name, tally in tallies.items()]
    expected, got = load_reference(graph, list(tallies)), load_reference(qdq, [*after, *before])
    for image in images:
        exact, values = expected(image), got(image)
        for i, tally in enumerate(tallies.values()):
            tally.add(exact[i], values[i], values[len(tallies) + i])


def _scaled(graph: Graph) -> frozenset[str]:
    """The tensors that a depthwise convolution reads, and those of linear streams."""
    read = (node.inputs[0] for node in graph.model.graph if is_depthwise(node))
    linear = (value for stream in streams(graph) for value in stream.tensors)
    return frozenset(str(value.name) for value in (*read, *linear) if value is not None)


def _form(op: Operator) -> Literal["int8", "int8, 7-bit weights", "float"]:
    x = op.inputs[0]
    if op.op_type in FLOAT_ISLANDS or op.outputs[0].scale is None or (x is not None and x.scale is None):
        return "float"
    stored = op.inputs[1].data if op.op_type in ("Conv", "Gemm") and op.inputs[1] is not None else None
    if stored is None:
        return "int8"
    return "int8" if np.abs(stored.astype(np.int16)).max() > 63 else "int8, 7-bit weights"


class _Tally:
    """Sums over the images of one layer's values."""

    def __init__(self, operand: Operand, bounds: tuple[float, float], rescaled: bool) -> None:
        self._bounds, self._rescaled = bounds, rescaled
        self._signal = self._noise = 0.0
        self._low, self._high = math.inf, -math.inf
        self._outside = self._total = 0
        self.held: tuple[float, float] | None = None
        self._half_step = 0.0
        if operand.scale is not None and operand.zero_point is not None:
            limits = np.iinfo(operand.zero_point.dtype)
            scale, zero_point = float(operand.scale[0]), int(operand.zero_point[0])
            self.held = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
            self._half_step = scale / 2

    def add(self, expected: np.ndarray, got: np.ndarray, unquantized: np.ndarray) -> None:
        """One image's values: of the float graph, of the int8 graph, and of that before its last rounding."""
        factors = _factors(expected, got) if self._rescaled else np.float32(1)
        self._signal += float(np.square(expected).sum())
        self._noise += float(np.square(expected - got * factors).sum())
        if self.held is None:
            return
        floor, ceiling = self._bounds
        reached = np.clip(unquantized, floor / factors, ceiling / factors)
        self._low, self._high = min(self._low, float(reached.min())), max(self._high, float(reached.max()))
        low, high = self.held
        outside = (reached < low - self._half_step) | (reached > high + self._half_step)
        self._outside += int(outside.sum())
        self._total += reached.size

    @property
    def sqnr_db(self) -> float:
        return decibel(self._signal, self._noise)

    @property
    def range(self) -> Range | None:
        if self.held is None:
            return None
        return Range(*self.held, self._low, self._high, self._outside / self._total)


def _factors(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """What makes each channel of the feature maps ``got`` most like ``expected``, (1, C, 1, 1); above 0."""
    power = np.square(got).sum(axis=(0, 2, 3), keepdims=True)
    factors = (expected * got).sum(axis=(0, 2, 3), keepdims=True) / np.where(power, power, 1)
    return np.where(factors > 0, factors, np.float32(1))
