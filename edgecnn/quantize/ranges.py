"""What NNCF decides: a range for each activation, a scale for each weight, a corrected bias for each layer."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import rich
from onnx import numpy_helper

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.quantize.groups import scale_groups

# NNCF reports its use to its makers through this package. Without it NNCF runs with a stub and sends nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import nncf  # noqa: E402
import nncf.onnx  # noqa: E402  (the backend registers itself here, not in the middle of the timed work)
from nncf.quantization.advanced_parameters import (  # noqa: E402
    AdvancedQuantizationParameters,
    OverflowFix,
    QuantizationParameters,
)

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Ranges:
    """Quantisation parameters by tensor name of the float graph."""

    activations: dict[str, tuple[float, float]] = field(repr=False)
    """Lowest and highest value that uint8 must represent, per tensor."""
    weight_scales: dict[str, np.ndarray] = field(repr=False)
    """Per weight initialiser: one float32 scale an output channel."""
    biases: dict[str, np.ndarray] = field(repr=False)
    """Per bias initialiser: the float32 bias after NNCF's fast bias correction."""


def find_ranges(
    graph: Graph, images: Sequence[np.ndarray] | Iterable[np.ndarray], count: int, progress: Progress
) -> Ranges:
    """Calibrate a float graph on images, each (1, C, H, W), read one at a time.

    NNCF's mixed preset gives symmetric weights a channel, asymmetric activations a tensor, and corrects the
    biases for the mean shift that rounding causes (fast bias correction).

    Raises:
        ConversionError: NNCF cannot quantise the graph.
    """
    name = str(graph.input.name)
    seen = 0

    def feed(image: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal seen
        seen += 1
        progress("calibrating", min(seen, count), count)
        return {name: image}

    try:
        with _quiet():
            quantized = nncf.quantize(
                onnx.load_model_from_string(graph.serialized),
                nncf.Dataset(images, feed),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=count,
                advanced_parameters=AdvancedQuantizationParameters(
                    # Depthwise activations would get a scale a channel, which no target executes.
                    activations_quantization_params=QuantizationParameters(per_channel=False),
                    # Seven-bit weights guard CPUs without VNNI; the check of the artifact does that here.
                    overflow_fix=OverflowFix.DISABLE,
                ),
            )
    except (nncf.UnsupportedModelError, nncf.InternalError, nncf.ValidationError, RuntimeError) as error:
        raise ConversionError(f"NNCF cannot quantise {graph.model.graph.name}: {str(error).splitlines()[0]}") from error
    ranges = _read(quantized.graph, graph)
    return _with_missing(graph, ranges, images, count, progress)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws its bars on rich's global console, which is standard output, and logs at INFO."""
    console, level = rich.get_console(), logging.getLogger("nncf").level
    was_quiet, console.quiet = console.quiet, True
    logging.getLogger("nncf").setLevel(logging.ERROR)
    try:
        yield
    finally:
        console.quiet = was_quiet
        logging.getLogger("nncf").setLevel(level)


def _read(quantized: onnx.GraphProto, graph: Graph) -> Ranges:
    constants = {tensor.name: tensor for tensor in quantized.initializer}

    def array(name: str) -> np.ndarray:
        return numpy_helper.to_array(constants[name])

    by_output = {name: node for node in quantized.node for name in node.output}
    activations: dict[str, tuple[float, float]] = {}
    for node in quantized.node:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = float(array(node.input[1])), array(node.input[2])
            limits = np.iinfo(zero_point.dtype)
            activations[node.input[0]] = (
                (limits.min - int(zero_point)) * scale,
                (limits.max - int(zero_point)) * scale,
            )
    weight_scales: dict[str, np.ndarray] = {}
    biases: dict[str, np.ndarray] = {}
    nodes = {node.name: node for node in quantized.node}
    for original in graph.model.graph:
        if original.op_type not in ("Conv", "Gemm"):
            continue
        names = [str(value.name) for value in original.inputs if value is not None]
        node = nodes[str(original.name)]
        dequantize = by_output.get(node.input[1])
        if dequantize is not None and dequantize.op_type == "DequantizeLinear":
            weight_scales[names[1]] = array(dequantize.input[1])
        biases[names[2]] = array(node.input[2])
    return Ranges(activations, weight_scales, biases)


def _with_missing(
    graph: Graph, ranges: Ranges, images: Iterable[np.ndarray], count: int, progress: Progress
) -> Ranges:
    """Add the minimum and maximum of tensors that NNCF left in float, such as the network's output."""
    groups = scale_groups(graph.model)
    missing = [
        str(value.name)
        for root, values in groups.members.items()
        if root not in groups.fixed and not any(str(value.name) in ranges.activations for value in values)
        for value in values
    ]
    if not missing:
        return ranges
    run = load_reference(graph, missing)
    low, high = np.full(len(missing), np.inf), np.full(len(missing), -np.inf)
    for done, (image, _) in enumerate(zip(images, range(count), strict=False)):
        progress("ranges", done + 1, count)
        outputs = run(image)
        low = np.minimum(low, [value.min() for value in outputs])
        high = np.maximum(high, [value.max() for value in outputs])
    measured = {name: (float(lo), float(hi)) for name, lo, hi in zip(missing, low, high, strict=True)}
    return Ranges({**ranges.activations, **measured}, ranges.weight_scales, ranges.biases)
