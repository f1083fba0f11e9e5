"""What NNCF decides: a range for each activation and a corrected bias for each layer."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_ir as ir
import rich
from onnx import numpy_helper

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.graph.rewrite import constant
from edgecnn.progress import Progress
from edgecnn.quantize.groups import SAME_SCALE, WEIGHTED, Groups, scale_groups

# NNCF reports its use to its makers through this package. Without it NNCF runs with a stub and sends nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import nncf  # noqa: E402
import nncf.onnx  # noqa: E402  (the backend registers itself here, not in the middle of the timed work)
from nncf.quantization.advanced_parameters import (  # noqa: E402
    AdvancedQuantizationParameters,
    OverflowFix,
    QuantizationParameters,
)

_BATCH = 4


@dataclass(frozen=True)
class Ranges:
    """What calibration found, by names of the float graph."""

    activations: dict[str, tuple[float, float]] = field(repr=False)
    """Lowest and highest value that uint8 must represent, per tensor."""
    channels: dict[str, np.ndarray] = field(repr=False)
    """Highest value of each channel, for tensors whose channels may be brought to one range (from 0)."""
    biases: dict[str, np.ndarray] = field(repr=False)
    """Per Conv and Gemm node: its float32 bias after NNCF's fast bias correction."""


def find_ranges(
    graph: Graph, images: Iterable[np.ndarray], count: int, progress: Progress, *, by_channel: bool = False
) -> Ranges:
    """Calibrate a float graph on images, each (1, C, H, W), read a few at a time.

    NNCF takes each tensor from the mean of the images' lowest values to the mean of their highest, and
    corrects biases for the mean shift that rounding causes, by one mean a channel (fast bias correction).

    ``by_channel`` lets NNCF give the inputs of depthwise convolutions a range a channel.

    Raises:
        ConversionError: an operator without an int8 form, or a graph that NNCF cannot quantise.
    """
    groups = scale_groups(graph.model)  # first, because it says more plainly what cannot be quantised
    tensors = {str(value.name) for members in groups.members.values() for value in members}
    with ThreadPoolExecutor(1) as meanwhile:
        # NNCF leaves the network's output in float, always; ONNX Runtime leaves the interpreter to NNCF.
        output = _missing(groups, tensors - {str(graph.output.name)})
        measured = meanwhile.submit(_extremes, graph, output, images, count)
        calibrated = _calibrate(graph, images, count, progress, by_channel=by_channel)
        ranges = _read(calibrated.graph, graph)
        activations = ranges.activations | measured.result()
    activations |= _extremes(graph, _missing(groups, activations), images, count)
    return replace(ranges, activations=activations)


def widest(graph: Graph, ranges: Ranges, images: Iterable[np.ndarray], count: int) -> Ranges:
    """Ranges of the same tensors from the lowest to the highest value on all images."""
    extremes = _extremes(graph, list(ranges.activations), images, count)
    return replace(ranges, activations=extremes)


def _calibrate(
    graph: Graph, images: Iterable[np.ndarray], count: int, progress: Progress, *, by_channel: bool
) -> onnx.ModelProto:
    name = str(graph.input.name)
    model, batch = _batched(graph)
    seen = 0

    def feed(batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal seen
        seen += len(batch)
        progress("calibrating", min(seen, count), count)
        return {name: batch}

    try:
        with _quiet():
            calibrated: onnx.ModelProto = nncf.quantize(
                model,
                nncf.Dataset(_Batches(images, batch), feed),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=-(-count // batch),
                advanced_parameters=AdvancedQuantizationParameters(
                    # Statistics of each image, not of the batch it happens to be in.
                    batchwise_statistics=batch > 1,
                    activations_quantization_params=QuantizationParameters(
                        per_channel=None if by_channel else False
                    ),
                    # Seven-bit weights guard CPUs without VNNI; the check of the artifact does that here.
                    overflow_fix=OverflowFix.DISABLE,
                ),
            )
            return calibrated
    except (nncf.UnsupportedModelError, nncf.InternalError, nncf.ValidationError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConversionError(f"NNCF cannot quantise {graph.model.graph.name}: {reason}") from error


@dataclass(frozen=True)
class _Batches:
    """Images joined along the first axis, each time it is iterated over; one batch in memory at a time."""

    images: Iterable[np.ndarray]
    size: int

    def __iter__(self) -> Iterator[np.ndarray]:
        images = iter(self.images)
        while batch := list(itertools.islice(images, self.size)):
            yield np.concatenate(batch)


def _batched(graph: Graph) -> tuple[onnx.ModelProto, int]:
    """The model for NNCF, and how many images it takes at once.

    NNCF spends as long on its bookkeeping for each inference as the inference takes, so that batches halve
    the calibration; ranges come out the same to the bit. An operator that moves values between images, or
    states the number of images in a constant, keeps the graph at one.
    """
    model = onnx.load_model_from_string(graph.serialized)
    if any(_ties_images_together(node) for node in graph.model.graph):
        return model, 1
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            # 0 takes over the number of images.
            tensor.CopyFrom(
                numpy_helper.from_array(np.asarray([0, *numpy_helper.to_array(tensor)[1:]]), tensor.name)
            )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "images"
    del model.graph.value_info[:]
    return model, _BATCH


def _ties_images_together(node: ir.Node) -> bool:
    before, after = (
        tuple(value.shape or ()) for value in (*node.inputs[:1], node.outputs[0]) if value is not None
    )
    if before[:1] != (1,) or after[:1] != (1,):
        return True
    rank = len(after)
    if node.op_type == "Transpose":
        return node.attributes.get_ints("perm", tuple(range(rank))[::-1])[0] != 0
    if node.op_type == "ReduceMean":
        return 0 in node.attributes.get_ints("axes", (0,))
    if node.op_type == "Concat" and any(constant(value) is not None for value in node.inputs):
        return True
    return node.op_type in ("Concat", "Softmax", "Flatten") and node.attributes.get_int("axis", 1) % rank == 0


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

    activations: dict[str, tuple[float, float]] = {}
    channels: dict[str, np.ndarray] = {}
    for node in quantized.node:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = array(node.input[1]).astype(np.float64), array(node.input[2])
            limits = np.iinfo(zero_point.dtype)
            scale, zero_point = np.atleast_1d(scale), zero_point.astype(int)
            low, high = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
            # A channel that is 0 on all images gets a tiny range around it.
            low[-low < high.max() / 256] = 0.0
            activations[node.input[0]] = (float(low.min()), float(high.max()))
            if scale.size > 1 and not low.any():
                channels[node.input[0]] = high.reshape(-1)
    nodes = {node.name: node for node in quantized.node}
    weighted = [str(node.name) for node in graph.model.graph if node.op_type in WEIGHTED]
    return Ranges(activations, channels, {name: array(nodes[name].input[2]) for name in weighted})


def _missing(groups: Groups, known: Collection[str]) -> list[str]:
    """Tensors without a range that bring values of their own into a group whose Concat has none either."""
    missing = []
    for root, values in groups.members.items():
        operators = {str(value.name): _operator_of(value) for value in values}
        if root in groups.fixed or any(operators[name] == "Concat" for name in operators if name in known):
            continue
        own = [name for name, operator in operators.items() if operator not in SAME_SCALE | {"Concat"}]
        # A Concat whose inputs all lie on fixed grids brings the only values of its group.
        missing += [name for name in own or operators if name not in known]
    return missing


def _extremes(
    graph: Graph, tensors: list[str], images: Iterable[np.ndarray], count: int
) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each tensor on the first ``count`` images."""
    if not tensors:
        return {}
    run = load_reference(graph, tensors, fused=True)
    low, high = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    for image in itertools.islice(images, count):
        outputs = run(image)
        low = np.minimum(low, [value.min() for value in outputs])
        high = np.maximum(high, [value.max() for value in outputs])
    return {name: (float(lo), float(hi)) for name, lo, hi in zip(tensors, low, high, strict=True)}


def _operator_of(value: ir.Value) -> str:
    producer = value.producer()
    return "" if producer is None else producer.op_type
