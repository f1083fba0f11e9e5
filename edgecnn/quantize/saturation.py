"""An int8 graph as x86 CPUs without VNNI compute it: products saturate in pairs.

VNNI's ``vpdpbusd`` adds four products of uint8 and int8 to an int32. CPUs without it (Intel's Haswell,
Skylake and Comet Lake among them, AMD's before Zen 4) use ``vpmaddubsw``, which adds the products of two
neighbours and saturates the sum to int16; 255 x 127 + 255 x 127 is twice what int16 holds. ``vpmaddwd`` and
``vpaddd``, which follow, are exact. So section 1.1 of oneDNN's "Nuances of int8 computations"
(doc/advanced/int8_computations.md), which leaves it to its user to choose weights that do not saturate.

What is multiplied, and which products are neighbours, is read from MLAS, the kernels of ONNX Runtime
(onnxruntime/core/mlas/lib, and core/providers/cpu/quantization/qlinearconv.cc):

- The uint8 operand is the activation as it is stored; its zero point is made up for by the bias, later.
- A convolution is a matrix product in NHWC: its terms are ordered by row, column and then channel of the
  kernel (``ReorderFilter``, ``Im2col``, ``MlasConvSymPackW``), each group on its own; those of a Gemm as they
  come. Padding holds the zero point. Neighbours are terms 2j and 2j + 1: B is packed in fours
  (``PackedK`` = 4), four bytes of A are broadcast at once (QgemmU8X8KernelAvx2, ConvSymKernelAvx2; those for
  AVX-512 without VNNI do the same). A last term without a neighbour cannot saturate.
- Depthwise kernels with one output a channel widen to 32 bits first (``MlasConvSymDepthwiseKernelAvx2``,
  ``MlasConvDepthwiseKernel``) and are exact.

oneDNN, which OpenVINO runs, multiplies by the same instructions, but fills up the channels of each kernel
position to a multiple of four. Where their number is odd, as in front of the first convolution, other
products are neighbours. XNNPACK, which TFLite runs, widens to 16 bits before it multiplies
(src/qs8-gemm/MRx8c8-avx2.c.in) and is not concerned, nor are ARM's kernels.

Held against the runtimes themselves on an emulated Haswell, with MobileNetV2 (SQNR of the two outputs, four
photographs; on the machine with VNNI the runtimes' outputs have 26 dB against the QDQ graph's):

| runtime | against the QDQ graph | against the graph that saturates as it does |
|---|---|---|
| ONNX Runtime 1.31 | 9.5 dB | 26.1 dB |
| OpenVINO 2026.4 | 6.9 dB | 24.1 dB |
| TFLite (ai-edge-litert 2.3) | 26.5 dB | - |

Where both weights of a pair have one sign and their magnitudes exceed 128 together, inputs exist that
saturate it. All other pairs are exact whatever the image: |w0| + |w1| <= 128 gives at most 255 x 128 = 32640.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import Operand, Operator, operators
from edgecnn.graph.rewrite import initializer

_LOW, _HIGH = -(2**15), 2**15 - 1
_EXACT_SUM = 128
# Rounding to the second-nearest integer (edgecnn.quantize.rounding) adds less than a step to each weight.
_SAFE_SUM = _EXACT_SUM - 2

Kernels = Literal["mlas", "onednn"]
KERNELS: dict[str, Kernels] = {"onnxruntime": "mlas", "openvino": "onednn"}
"""Whose kernels a runtime multiplies uint8 and int8 with; those that are not here widen first."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of neighbouring weights of one layer that some input saturates."""

    inputs: np.ndarray = field(repr=False)
    """The places of both inputs among the terms of the whole layer, all groups together, (pairs, 2)."""
    output: np.ndarray = field(repr=False)
    """Per pair, the output channel that it belongs to."""
    weights: np.ndarray = field(repr=False)
    """Both integers, (pairs, 2)."""
    of: int
    """How many pairs the layer has in all."""

    def __len__(self) -> int:
        return len(self.output)


def saturable(qdq: Graph, kernels: Kernels) -> dict[str, Pairs]:
    """Every Conv and Gemm with pairs that some input saturates, by its node's name, in execution order."""
    found = {operator.name: _pairs(operator, kernels) for operator in operators(qdq) if _is_u8s8(operator)}
    return {name: pairs for name, pairs in found.items() if len(pairs)}


def safe_scales(weight: np.ndarray) -> np.ndarray:
    """The least scale of each output channel of weights (out, ...) at which no pair saturates, float32.

    On no runtime's kernels, and whatever the input. Twice the scale of 8 bits, which is 7 bits, would do for
    all; most channels need less, since their largest weights are no neighbours.
    """
    largest = np.zeros(len(weight))
    for kernels in set(KERNELS.values()):
        highest, lowest = _sums(_terms(weight, kernels)[0])
        largest = np.maximum(largest, np.maximum(highest, -lowest).max(axis=1))
    return (largest / _SAFE_SUM).astype(np.float32)


def excess_name(node: str) -> str:
    """The name of the tensor in ``saturating``'s graph that holds what a layer's sums lose, in integers."""
    return f"{node}:excess"


def saturating(qdq: Graph, pairs: Mapping[str, Pairs]) -> Graph:
    """The QDQ graph with the saturation of its ``saturable`` pairs written into it.

    To each layer with pairs that can saturate is added what its sums lose by it: clip(p) - p for the sum p of
    both products of a pair, added up over the pairs of an output, times the scales of input and weights. The
    result is run like any QDQ graph (``edgecnn.graph.reference``); it is not for a back end.
    """
    model = qdq.copy()
    nodes = {str(node.name): node for node in model.graph}
    for operator in operators(qdq):
        if operator.name in pairs:
            _add_excess(model.graph, nodes[operator.name], operator, pairs[operator.name])
    return Graph(model, qdq.precision)


def _is_u8s8(operator: Operator) -> bool:
    """Whether a runtime multiplies uint8 by int8 here, in pairs."""
    if operator.op_type not in ("Conv", "Gemm"):
        return False
    x, weight = operator.inputs[:2]
    if x is None or weight is None or weight.data is None:
        return False
    integers = x.dtype == np.uint8 and weight.dtype == np.int8 and operator.outputs[0].scale is not None
    return integers and not _is_depthwise(operator, weight)


def _is_depthwise(operator: Operator, weight: Operand) -> bool:
    """Whether each channel has one output and is read by no other."""
    groups = operator.attributes.get("group", 1)
    return bool(1 < groups == weight.shape[0] and weight.shape[1] == 1)


def _pairs(operator: Operator, kernels: Kernels) -> Pairs:
    weight = operator.inputs[1]
    assert weight is not None
    assert weight.data is not None
    neighbours, places = _terms(weight.data.astype(np.int16), kernels)
    highest, lowest = _sums(neighbours)
    output, pair = np.nonzero((highest > _EXACT_SUM) | (lowest < -_EXACT_SUM))
    groups = int(operator.attributes.get("group", 1))
    channels = weight.shape[1]
    group = output // (weight.shape[0] // groups)
    position, channel = np.divmod(places[pair], channels)
    inputs = position * (channels * groups) + (group * channels)[:, None] + channel
    total = neighbours.shape[0] * neighbours.shape[1]
    return Pairs(inputs, output, neighbours[output, pair], total)


def _terms(weight: np.ndarray, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
    """Weights (out, ...) as pairs of neighbours, (out, pairs, 2), and their places in the group, (pairs, 2).

    A place counts rows, columns and channels, the last the fastest. What fills up is 0, at any place.
    """
    terms = np.moveaxis(weight, 1, -1)
    places: np.ndarray = np.arange(math.prod(terms.shape[1:])).reshape(terms.shape[1:])
    if kernels == "mlas":
        terms, places = terms.reshape(len(terms), -1), places.reshape(-1)
    if odd := terms.shape[-1] % 2:
        terms = np.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, odd)])
        places = np.pad(places, [(0, 0)] * (places.ndim - 1) + [(0, odd)])
    return terms.reshape(len(terms), -1, 2), places.reshape(-1, 2)


def _sums(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest and the lowest sum of each pair's products, for inputs from 0 to 1: (out, pairs) each."""
    a, b = neighbours[..., 0], neighbours[..., 1]
    return np.maximum(a, 0) + np.maximum(b, 0), np.minimum(a, 0) + np.minimum(b, 0)


def _add_excess(graph: ir.Graph, node: ir.Node, operator: Operator, pairs: Pairs) -> None:
    """Put the nodes that compute a layer's excess behind it, and add it to the layer's output."""
    x, weight = operator.inputs[:2]
    assert x is not None
    assert weight is not None
    assert x.scale is not None
    assert weight.scale is not None
    dequantize = node.inputs[0].producer()  # type: ignore[union-attr]
    assert dequantize is not None
    stored = dequantize.inputs[0]
    assert stored is not None
    write = _Writer(graph, node)
    if operator.op_type == "Conv":
        stored = _im2col(write, operator, x, stored)
    shape = shape_of(node.outputs[0])
    along = (-1, *([1] * (len(shape) - 2)))
    products = []
    for which in (0, 1):
        places = write.constant(f"{which}.places", pairs.inputs[:, which])
        chosen = write("Cast", [write("Gather", [stored, places], {"axis": 1})], {"to": ir.DataType.FLOAT})
        integers = pairs.weights[:, which].reshape(along).astype(np.float32)
        products.append(write("Mul", [chosen, write.constant(f"{which}.weights", integers)]))
    total = write("Add", products)
    limits = [write.constant(role, np.float32(limit)) for role, limit in (("low", _LOW), ("high", _HIGH))]
    lost = write("Sub", [write("Clip", [total, *limits]), total])
    # Output channels first: ScatterND adds up along the first axis.
    swap = {"perm": (1, 0, *range(2, len(shape)))}
    outputs = write.constant("outputs", pairs.output.reshape(-1, 1))
    zeros = write.constant("zeros", np.zeros((shape[1], shape[0], *shape[2:]), np.float32))
    sums = write("ScatterND", [zeros, outputs, write("Transpose", [lost], swap)], {"reduction": "add"})
    excess = write("Transpose", [sums], swap)
    excess.name = excess_name(operator.name)
    excess.shape, excess.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    steps = x.scale * np.broadcast_to(weight.scale, (shape[1],))
    scaled = write("Mul", [excess, write.constant("steps", steps.reshape(along).astype(np.float32))])
    old = node.outputs[0]
    users = [(use.node, use.idx) for use in old.uses()]
    result = write("Add", [old, scaled])
    result.shape, result.type = old.shape, old.type
    for user, index in users:
        user.replace_input_with(index, result)


def _im2col(write: _Writer, operator: Operator, x: Operand, stored: ir.Value) -> ir.Value:
    """All terms of a convolution's sums as channels: (N, rows x columns x channels, height, width), uint8."""
    weight = operator.inputs[1]
    assert weight is not None
    assert x.zero_point is not None
    kernel = weight.shape[2:]
    pads = list(operator.attributes.get("pads", [0] * 2 * len(kernel)))
    strides = list(operator.attributes.get("strides", [1] * len(kernel)))
    dilations = list(operator.attributes.get("dilations", [1] * len(kernel)))
    if any(pads):
        around = np.asarray([0, 0, *pads[: len(kernel)], 0, 0, *pads[len(kernel) :]], np.int64)
        fill = write.constant("fill", np.asarray(x.zero_point[0], np.uint8))
        stored = write("Pad", [stored, write.constant("pads", around), fill])
    if math.prod(kernel) == 1 and max(strides) == 1:
        return stored
    sizes = operator.outputs[0].shape[2:]
    axes = write.constant("axes", np.arange(2, 2 + len(kernel)))
    steps = write.constant("strides", np.asarray(strides, np.int64))
    taken = []
    for place in np.ndindex(*kernel):
        starts = np.asarray(place) * dilations
        ends = starts + (np.asarray(sizes) - 1) * strides + 1
        name = "x".join(map(str, place))
        bounds = [write.constant(f"{name}.start", starts), write.constant(f"{name}.end", ends)]
        taken.append(write("Slice", [stored, *bounds, axes, steps]))
    return taken[0] if len(taken) == 1 else write("Concat", taken, {"axis": 1})


class _Writer:
    """Puts nodes behind a layer, one after the other, each with one output."""

    def __init__(self, graph: ir.Graph, layer: ir.Node) -> None:
        self._graph = graph
        self._last = layer
        self._prefix = f"{layer.name}:saturation"
        self._count = 0

    def __call__(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, object] | None = None
    ) -> ir.Value:
        """A node behind the last one; gives its output."""
        self._count += 1
        name = f"{self._prefix}.{self._count}.{op_type}"
        node = ir.node(op_type, inputs, attributes or {}, name=name)  # type: ignore[arg-type]
        node.outputs[0].name = f"{name}:result"
        self._graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]

    def constant(self, role: str, array: np.ndarray | np.float32) -> ir.Value:
        """An initialiser for one of them."""
        return initializer(self._graph, f"{self._prefix}.{role}", np.asarray(array))
