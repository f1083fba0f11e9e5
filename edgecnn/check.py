"""Every stage's result against what it was made from, on real images.

| stage | compared with | must hold |
|---|---|---|
| float graph | eager torch, or the .onnx file | max abs difference <= 1e-4 x max abs output, same top-1 |
| fp16 or QDQ graph | float graph | SQNR and agreement recorded, refused below a floor |
| fp32 or fp16 artifact | its own graph | max abs difference <= 1e-3 x max abs output, same top-1 |
| int8 artifact | QDQ graph, unfused | mean abs difference in output steps, same top-1 where it is clear |

A top-1 counts where the reference's margin (first minus second logit) is wider than the allowed difference;
random weights give logits that are all but equal, and a tie decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from edgecnn.data.sets import Images
from edgecnn.errors import ParityError
from edgecnn.graph.graph import Graph
from edgecnn.graph.operators import operators
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.layer_noise import measure_layers
from edgecnn.sqnr import decibel

TORCH_LIMIT = 1e-4
"""Largest difference between the float graph and eager torch, relative to the largest output."""
FLOAT_LIMIT = 1e-3
"""Largest difference between a float artifact and its graph, relative to the largest output."""
INT8_STEPS = 1.5
"""Largest mean difference between an int8 artifact on a CPU and its QDQ graph, in steps of the output scale:
runtimes round requantised accumulators differently, by one step an operator at most."""
CLEAR_MARGIN_STEPS = 4
"""Margin from which an int8 artifact's top-1 must be the QDQ graph's, in steps of the output scale."""
AS_NEAR = 1.05
"""How much farther from the float graph than the QDQ graph an int8 artifact may be that leaves the QDQ graph.
OpenVINO adds a residual before it rounds it: one rounding less, other integers. Through networks that
amplify noise, as untrained ones do, the outputs part by 2 to 4 steps, while both stay equally far from the
float graph (0.94 to 1.02 times, eight untrained MobileNetV2)."""
SQNR_FLOORS_DB = {"fp16": 30.0, "int8": 8.0}
"""Below it a precision has lost the network. Healthy networks have shown 41 dB and more in fp16, and in int8
20 to 28 dB trained, 15 to 28 dB untrained."""

TapLoader = Callable[[Sequence[str]], Runner]
"""Loads the compiled model so that it gives the named tensors instead of its output."""


@dataclass(frozen=True)
class Check:
    """One comparison that held."""

    stage: str
    """What was checked."""
    against: str
    """What it was compared with."""
    images: int
    """How many images it was compared on."""
    metric: str
    """What ``value`` measures, with its unit."""
    value: float
    """The figure."""
    limit: float
    """What it had to stay below, or for ``sqnr_db`` above."""
    top1_agreement: float
    """Share of all images with the same top-1, ties included, from 0 to 1."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the manifest."""
        return {key: value if value != math.inf else "inf" for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Outputs:
    """What a graph gives for some images: the measure of whatever is compiled from it, and of itself."""

    expected: Sequence[np.ndarray] = field(repr=False)
    """The graph's outputs, run unfused, one an image."""
    exact: Sequence[np.ndarray] = field(repr=False)
    """The float graph's that it came from; the same where it is that."""
    step: float
    """The scale of an int8 graph's output; where its last layer is in float, a 255th of the span of its
    outputs, or of 1 where all are equal. 0 for other graphs."""


def outputs_of(graph: Graph, compiled: Graph, images: Images) -> Outputs:
    """Run a graph, and the float graph that it came from, on inputs (1, C, H, W)."""
    expected = _outputs(load_reference(compiled), images)
    exact = expected if compiled is graph else _outputs(load_reference(graph), images)
    step = 0.0
    if compiled.precision == "int8":
        span = max(float(output.max()) for output in expected)
        span -= min(float(output.min()) for output in expected)
        step = _steps(compiled).get(str(compiled.output.name)) or (span or 1.0) / 255
    return Outputs(expected, exact, step)


def float_graph(
    graph: Graph, original: Runner, name: str, images: Images, layers: Runner | None = None
) -> Check:
    """The canonical graph against what it was made from.

    Args:
        graph: the canonical fp32 graph.
        original: the torch module or the file as it was read, from one input (NCHW, float32) to its output.
        name: what that is, for the record.
        images: inputs (1, C, H, W).
        layers: gives what the module's layers compute, in order, as ``from_torch.layer_outputs`` does; run
            only on failure, to name the first layer that diverges.

    Raises:
        ParityError: they differ by more than ``TORCH_LIMIT``, or name another class.
    """

    def first(image: np.ndarray) -> str | None:
        return _first_unmatched(graph, layers(image), image) if layers is not None else None

    pairs = _pairs(original, load_reference(graph), images)
    return _relative("float graph", name, pairs, TORCH_LIMIT, first)


def float_artifact(graph: Graph, outputs: Outputs, loader: TapLoader, run: Runner, images: Images) -> Check:
    """A compiled fp32 or fp16 model against its canonical graph.

    Args:
        graph: the graph that was compiled.
        outputs: what it gives for the images.
        loader: loads the model so that it gives tensors by name.
        run: the model.
        images: inputs (1, C, H, W).

    Raises:
        ParityError: they differ by more than ``FLOAT_LIMIT``; it names the first layer that does.
    """

    def first(image: np.ndarray) -> str | None:
        layers = {
            operand.name: operator.name for operator in operators(graph) for operand in operator.outputs
        }

        def bad(tensor: str, expected: np.ndarray, got: np.ndarray) -> bool:
            return not _relative_difference(expected, got) <= FLOAT_LIMIT

        return _first_layer(layers, load_reference(graph, list(layers)), loader(list(layers)), image, bad)

    triples = zip(images, outputs.expected, map(itemgetter(0), map(run, images)), strict=True)
    return _relative(f"{graph.precision} artifact", f"{graph.precision} graph", triples, FLOAT_LIMIT, first)


def int8_artifact(qdq: Graph, outputs: Outputs, loader: TapLoader, run: Runner, images: Images) -> Check:
    """A compiled int8 model against its QDQ graph, run unfused.

    A runtime may leave out a rounding that the QDQ graph has. Where the outputs part by more than
    ``INT8_STEPS``, the model holds if it is as near to the float graph as the QDQ graph is; the check then
    says so. Where the last layer is in float, a step is a 255th of the span of the QDQ graph's outputs.

    Args:
        qdq: the int8 graph that the model was compiled from.
        outputs: what it and the float graph give for the images.
        loader: loads the model so that it gives tensors by name.
        run: the model.
        images: inputs (1, C, H, W).

    Raises:
        ParityError: neither holds, or a clear top-1 differs; it names the first layer that diverges.
    """
    scales, got = _steps(qdq), _outputs(run, images)

    def first(image: np.ndarray) -> str | None:
        layers = _quantized_layers(qdq)
        taps = load_reference(qdq, [_dequantized(qdq, name) for name in layers])

        def bad(tensor: str, expected: np.ndarray, got: np.ndarray) -> bool:
            return not np.abs(expected - got).mean() <= INT8_STEPS * scales[tensor]

        return _first_layer(layers, taps, loader(list(layers)), image, bad)

    try:
        return int8_outputs(outputs, got)
    except ParityError:
        check, wrong, worst = _in_steps(outputs, got)
        raise _parity(check, wrong, first(list(images)[worst])) from None


def int8_outputs(outputs: Outputs, got: Sequence[np.ndarray], stage: str = "int8 artifact") -> Check:
    """The outputs of a compiled int8 model against its QDQ graph's, or the float graph's: `int8_artifact`.

    Args:
        outputs: what it was compiled from gives.
        got: what it gives, one array an image.
        stage: what was checked, for the record.

    Raises:
        ParityError: they differ by more than either comparison allows.
    """
    check, wrong, _ = _in_steps(outputs, got, stage)
    if check.value <= check.limit and not wrong:
        return check
    if check.value > check.limit and (as_near := _as_near(outputs, got, stage)) is not None:
        return as_near
    raise _parity(check, wrong, None)


def _in_steps(
    outputs: Outputs, got: Sequence[np.ndarray], stage: str = "int8 artifact"
) -> tuple[Check, int, int]:
    """The check, how many clear classes are others, and which image is worst."""
    agree = wrong = 0
    sum_of_steps = 0.0
    badness = []
    for expected, g in zip(outputs.expected, got, strict=True):
        steps = _mean_steps(expected, g, outputs.step)
        sum_of_steps += steps
        same = _top1(expected) == _top1(g)
        clear = not same and _margin(expected) > CLEAR_MARGIN_STEPS * outputs.step
        agree, wrong = agree + same, wrong + clear
        badness.append(math.inf if clear or math.isnan(steps) else steps)
    total = len(badness)
    check = Check(
        stage, "int8 graph, unfused", total, "mean_abs_steps", sum_of_steps / total, INT8_STEPS, agree / total
    )
    return check, wrong, badness.index(max(badness))


def _as_near(outputs: Outputs, got: Sequence[np.ndarray], stage: str) -> Check | None:
    """The check of an int8 model against the float graph, or None where the QDQ graph is nearer to it.

    A top-1 must be the float graph's where the QDQ graph's own error could not turn it.
    """
    total = agree = 0
    ours = theirs = 0.0
    for exact, quantized, g in zip(outputs.exact, outputs.expected, got, strict=True):
        ours += _mean_steps(exact, g, outputs.step)
        theirs += _mean_steps(exact, quantized, outputs.step)
        same = _top1(exact) == _top1(g)
        if not same and _margin(exact) > 2 * float(np.abs(exact - quantized).max()):
            return None
        total, agree = total + 1, agree + same
    limit = AS_NEAR * theirs / total
    if not ours / total <= limit:
        return None
    return Check(stage, "float graph", total, "mean_abs_steps", ours / total, limit, agree / total)


def float_outputs(
    expected: Sequence[np.ndarray], got: Sequence[np.ndarray], stage: str, against: str
) -> Check:
    """The outputs of a compiled fp32 or fp16 model against its graph's.

    Raises:
        ParityError: they differ by more than ``FLOAT_LIMIT``.
    """
    triples = ((e, e, g) for e, g in zip(expected, got, strict=True))
    return _relative(stage, against, triples, FLOAT_LIMIT, lambda _: None)


def lowered_graph(graph: Graph, lowered: Graph, outputs: Outputs, images: Images, which: str) -> Check:
    """The fp16 or QDQ graph against the float graph it came from.

    Args:
        graph: the canonical fp32 graph.
        lowered: the same network in fp16 or int8.
        outputs: what both give for the images.
        images: inputs (1, C, H, W).
        which: what images they are, for the record.

    Raises:
        ParityError: the signal-to-quantisation-noise ratio is below the precision's floor; for int8 it names
            the layers that lose most.
    """
    total = agree = 0
    signal = noise = 0.0
    for expected, got in zip(outputs.exact, outputs.expected, strict=True):
        total, agree = total + 1, agree + (_top1(expected) == _top1(got))
        signal += float(np.square(expected).sum())
        noise += float(np.square(expected - got).sum())
    precision, floor_db = lowered.precision, SQNR_FLOORS_DB[lowered.precision]
    check = Check(
        f"{precision} graph",
        f"float graph on {which}",
        total,
        "sqnr_db",
        decibel(signal, noise),
        floor_db,
        agree / total,
    )
    if not check.value >= floor_db:
        worst = ""
        if precision == "int8":
            layers = measure_layers(graph, lowered, [next(iter(images))])
            noisiest = sorted(layers, key=lambda layer: layer.sqnr_db)[:3]
            worst = "; the layers that lose most: " + ", ".join(
                f"{layer.name} ({layer.sqnr_db:.1f} dB)" for layer in noisiest
            )
        hint = "use --precision fp32"
        if precision == "int8":
            hint = f"calibrate on more images, like those it will see (--calibration DIR), or {hint}"
        raise ParityError(
            f"{precision} graph: SQNR {check.value:.1f} dB against the {check.against} ({total}) is below "
            f"the floor of {floor_db:g} dB{worst}",
            hint=hint,
        )
    return check


def _outputs(run: Runner, images: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [run(image)[0] for image in images]


def _pairs(
    reference: Runner, candidate: Runner, images: Iterable[np.ndarray]
) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for image in images:
        yield image, reference(image)[0], candidate(image)[0]


def _relative(
    stage: str,
    against: str,
    pairs: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    limit: float,
    first_layer: Callable[[np.ndarray], str | None],
) -> Check:
    total = agree = wrong = 0
    worst: tuple[float, np.ndarray | None] = (-1.0, None)
    for image, expected, got in pairs:
        difference = _relative_difference(expected, got)
        same = _top1(expected) == _top1(got)
        clear = not same and _margin(expected) > 2 * limit * float(np.abs(expected).max())
        total, agree, wrong = total + 1, agree + same, wrong + clear
        # A NaN is worse than any number, and stays.
        if not difference <= worst[0] and not math.isnan(worst[0]):
            worst = (difference, image)
    check = Check(stage, against, total, "max_abs_relative", worst[0], limit, agree / total)
    if not worst[0] <= limit or wrong:
        assert worst[1] is not None
        raise _parity(check, wrong, first_layer(worst[1]))
    return check


def _parity(check: Check, wrong: int, layer: str | None) -> ParityError:
    where = f"; the first layer that diverges is '{layer}'" if layer else ""
    classes = f", and {wrong} of {check.images} images get another class" if wrong else ""
    return ParityError(
        f"{check.stage}: {check.metric} is {check.value:.3g} against the {check.against} on {check.images} "
        f"images, the limit is {check.limit:g}{classes}{where}",
        hint="nothing was written; `edgecnn doctor` lists the versions to report with this line",
    )


def _first_layer(
    layers: dict[str, str],
    expected: Runner,
    got: Runner,
    image: np.ndarray,
    bad: Callable[[str, np.ndarray, np.ndarray], bool],
) -> str | None:
    """The layer of the first tensor in execution order that the compiled model still has and that is ``bad``.

    Args:
        layers: names of tensors in execution order, each with its layer's.
        expected: gives these tensors as they should be.
        got: gives them as the compiled model has them, NaN of rank 0 where it does not.
        image: the input.
        bad: whether a tensor, given its name and both values of one shape, diverges.
    """
    for (tensor, layer), e, g in zip(layers.items(), expected(image), got(image), strict=True):
        fused_away = np.ndim(g) == 0 and np.ndim(e) > 0
        if not fused_away and (not _same_shape(e, g) or bad(tensor, e, g)):
            return layer
    return None


def _first_unmatched(graph: Graph, layers: Sequence[np.ndarray], image: np.ndarray) -> str | None:
    """The node at which a torch module's layers first compute what no tensor of the graph holds.

    Layers and tensors are matched in order, by shape and value. A layer without its like stands for the first
    tensor of its shape behind the last match.
    """
    names = [(str(node.name), str(output.name)) for node in graph.model.graph for output in node.outputs]
    tensors = load_reference(graph, [tensor for _, tensor in names])(image)
    unmatched = list(range(len(tensors)))
    for layer in layers:
        alike = [i for i in unmatched if _same_shape(layer, tensors[i])]
        equal = [i for i in alike if _relative_difference(layer, tensors[i]) <= TORCH_LIMIT]
        if equal:
            unmatched = [i for i in unmatched if i > equal[0]]
        elif alike:
            return names[alike[0]][0]
    return names[-1][0]


def _dequantized(graph: Graph, tensor: str) -> str:
    """The name of a quantised tensor's float values in a QDQ graph."""
    return tensor if tensor == graph.output.name else f"{tensor}:dequantized"


def _quantized_layers(graph: Graph) -> dict[str, str]:
    """The layer of every quantised activation that an operator computes, in execution order.

    What is quantised behind a layer in float stands for that layer.
    """
    layers: dict[str, str] = {}
    in_float: dict[str, str] = {}
    for operator in operators(graph):
        name, source = operator.name, operator.inputs[0]
        if operator.op_type == "QuantizeLinear" and source is not None:
            name = in_float.get(source.name, name)
        for operand in operator.outputs:
            (in_float if operand.scale is None else layers)[operand.name] = name
    return layers


def _steps(graph: Graph) -> dict[str, float]:
    """Scale of every quantised activation that an operator computes."""
    return {
        operand.name: float(operand.scale[0])
        for operator in operators(graph)
        for operand in operator.outputs
        if operand.scale is not None
    }


def _mean_steps(expected: np.ndarray, got: np.ndarray, step: float) -> float:
    """Mean absolute difference in steps, infinite where the shapes differ."""
    return float(np.abs(expected - got).mean()) / step if _same_shape(expected, got) else math.inf


def _same_shape(expected: np.ndarray, got: np.ndarray) -> bool:
    return np.shape(expected) == np.shape(got)


def _relative_difference(expected: np.ndarray, got: np.ndarray) -> float:
    if not _same_shape(expected, got):
        return math.inf
    scale = float(np.abs(expected).max())
    difference = float(np.abs(expected.astype(np.float64) - got).max())  # max() gives NaN where there is one
    return difference / scale if scale else difference


def _top1(logits: np.ndarray) -> int:
    return int(np.argmax(logits))


def _margin(logits: np.ndarray) -> float:
    """First minus second largest value; infinite where there is one value."""
    if logits.size < 2:
        return math.inf
    second, first = np.partition(logits.reshape(-1), -2)[-2:]
    return float(first - second)
