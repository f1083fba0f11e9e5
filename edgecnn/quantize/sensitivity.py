"""How much noise each rounding of an int8 graph adds to the network's output.

An int8 graph rounds activations, one tensor at a time, and weights, one layer at a time. Each rounding is
made alone, in the float graph, and the power of what it changes at the output is measured. Roundings are all
but independent of each other: their powers add up to what they cost together. That says what a set of layers
in float gains, without trying the sets: a layer's weights are exact once it is in float, a tensor once all
that write or read it are.

Leaving one layer at a time in float in the int8 graph would not say it. The layer's neighbours still round
what it reads and writes, which is nearly all there is (MobileNetV2: nine tenths of the noise are of
activations), and what is left of the difference drowns in the noise of all the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import fusible_activation
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.progress import Progress, silent
from edgecnn.quantize.form import assign, quantized_at
from edgecnn.quantize.groups import SAME_SCALE, WEIGHTED
from edgecnn.quantize.quantize import Prepared
from edgecnn.quantize.scheme import Scheme

# 150 dB below the output: float32's own rounding.
_LEAST_POWER = 1e-15


@dataclass(frozen=True)
class Noise:
    """Power that each rounding adds to the output, over the power of the output, on a typical image."""

    tensors: dict[str, float] = field(repr=False)
    """By activation tensor of the float graph."""
    weights: dict[str, float] = field(repr=False)
    """By Conv and Gemm node."""
    complete: bool
    """False where time ran out: what was not measured counts as the mean of what was."""

    @property
    def total(self) -> float:
        """Of all roundings together, as if they were independent."""
        return sum(self.tensors.values()) + sum(self.weights.values())


def measure(
    prepared: Prepared,
    scheme: Scheme,
    images: Sequence[np.ndarray],
    *,
    known: dict[str, float],
    found: Callable[[], None] = lambda: None,
    until: float = np.inf,
    progress: Progress = silent,
) -> Noise:
    """Measure every rounding alone.

    Args:
        prepared: the calibrated network.
        scheme: which int8 graph; its layers in float are taken for int8.
        images: a few inputs (1, C, H, W).
        known: what was measured before, by the rounding's name; new figures are added to it.
        found: called after each new figure.
        until: ``time.monotonic()`` at which to stop.
        progress: told how many roundings are measured.
    """
    parts = prepared.parts(replace(scheme, float_layers=frozenset()))
    exact, quants = parts.exact, assign(parts.rounded.model, parts.ranges, parts.scheme)
    tensors, layers = _rounded_tensors(exact.model), _weighted(exact.model)
    asked = [f"tensor {name}" for name in tensors] + [f"weights {name}" for name in layers]
    missing = [name for name in asked if name not in known]
    if missing and time.monotonic() < until:
        outputs = _outputs(exact, images)
        for name in missing:
            if time.monotonic() >= until:
                break
            kind, _, what = name.partition(" ")
            if kind == "tensor":
                changed = quantized_at(exact, what, quants[what])
            else:
                changed = _with_layer_of(exact, parts.rounded, what)
            known[name] = _power(_outputs(changed, images) - outputs, outputs)
            found()
            progress("measuring sensitivity", sum(entry in known for entry in asked), len(asked))
    measured = [known[name] for name in asked if name in known]
    usual = sum(measured) / len(measured) if measured else 1.0
    return Noise(
        {name: known.get(f"tensor {name}", usual) for name in tensors},
        {name: known.get(f"weights {name}", usual) for name in layers},
        len(measured) == len(asked),
    )


def layers_of(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Each layer in execution order: its node, and the one that gives its result, a fused Relu or Clip."""
    absorbed: set[ir.Node] = set()
    for node in model.graph:
        if node not in absorbed:
            activation = fusible_activation(node)
            absorbed |= {activation} if activation is not None else set()
            yield node, activation or node


def _rounded_tensors(model: ir.Model) -> list[str]:
    """The activations that are rounded anew: not those that only move what was rounded before."""
    results = [
        output
        for node, last in layers_of(model)
        if node.op_type not in SAME_SCALE | {"Concat"}
        for output in last.outputs
        if output.uses() or output.is_graph_output()
    ]
    return [str(value.name) for value in (*model.graph.inputs, *results)]


def _weighted(model: ir.Model) -> list[str]:
    return [str(node.name) for node in model.graph if node.op_type in WEIGHTED]


def _with_layer_of(exact: Graph, rounded: Graph, name: str) -> Graph:
    """The float graph with weights and bias of one layer as the rounded graph has them."""
    [source] = [node for node in rounded.model.graph if node.name == name]
    model = exact.copy()
    [node] = [node for node in model.graph if node.name == name]
    for value, other in zip(node.inputs[1:], source.inputs[1:], strict=True):
        array = constant(other)
        assert value is not None
        assert array is not None
        value.const_value = ir.tensor(array, name=value.name)
    return Graph(model, exact.precision)


def _power(difference: np.ndarray, signal: np.ndarray) -> float:
    """Power of the difference over that of the signal on a typical image: the geometric mean over images.

    A range that a rare image exceeds adds a thousand times the median on that one image, alone; among the
    other roundings of a MobileNetV2 it has shown next to nothing, and it turns one class at most.
    """
    axes = tuple(range(1, difference.ndim))
    power = np.square(signal, dtype=np.float64).sum(axis=axes)
    noise = np.square(difference, dtype=np.float64).sum(axis=axes)
    shares = np.maximum(noise / np.where(power, power, 1.0), _LEAST_POWER)
    return float(np.exp(np.log(shares).mean()))


def _outputs(graph: Graph, images: Sequence[np.ndarray]) -> np.ndarray:
    run = load_reference(graph, fused=True)
    return np.stack([run(image)[0] for image in images])
