"""A request carried out: the network's canonical graph, and what it is checked against."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from edgecnn.check import Check
from edgecnn.data.sets import verification_inputs
from edgecnn.graph.from_torch import eager_output, export, layer_outputs
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner
from edgecnn.progress import Progress, silent
from edgecnn.source import factory, library
from edgecnn.source.recipes import RECIPES
from edgecnn.source.request import Request
from edgecnn.zoo import build
from edgecnn.zoo.weights import LoadedWeights, load_weights

if TYPE_CHECKING:
    from edgecnn.graph.from_onnx import OnnxFile

# torch keeps its generator of random weights and its exporter's state in globals: one thread at a time.
_TORCH = threading.Lock()


@dataclass(frozen=True)
class Network:
    """A network as its canonical float graph, with all that is known of where it came from."""

    variant: str
    """The name in file names."""
    graph: Graph = field(repr=False)
    """Canonical, fp32."""
    original: Callable[[], Runner] = field(repr=False)
    """Loads what the graph was made from: a function from one input (NCHW, float32) to the output."""
    original_name: str
    """What that is, for messages."""
    layers: Runner | None = field(repr=False)
    """What the original's layers compute for one input, in order; None where that cannot be seen."""
    params: int
    """Learned parameters of the original, batch norm included: the number that papers state."""
    weights: LoadedWeights = field(repr=False)
    """What it is loaded with, and how its inputs are prepared."""
    description: dict[str, Any]
    """Source and options, for the manifest."""
    notes: tuple[str, ...] = ()
    """What reading it has changed, in sentences for people."""
    qdq: Graph | None = field(default=None, repr=False)
    """The canonical int8 graph of a file that is quantised already; ``graph`` is its float twin then."""
    imported: Check | None = None
    """How ``qdq`` compares with the file."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, NCHW."""
        return shape_of(self.graph.input)


def load(request: Request, progress: Progress = silent) -> Network:
    """Read or build the network of a request and bring it into canonical form.

    A file that is quantised already is compared with its canonical form on the verification photographs.

    Raises:
        ConfigError: a request that the source cannot fulfil.
        MissingDependency: a library that is not there.
        WeightsError: weights that cannot be had or do not fit.
        ConversionError: a network that has no canonical form.
        ParityError: a quantised file that computes something else in canonical form.
    """
    if request.kind == "onnx":
        return _from_onnx(request, progress)
    with _TORCH:
        return _from_torch(request, progress)


def _from_torch(request: Request, progress: Progress) -> Network:
    shape = request.input_shape
    if request.spec is not None:
        module = build(request.spec)
        weights = load_weights(request.spec, module, request.weights, progress)
        description: dict[str, Any] = {"source": "zoo", **asdict(request.spec)}
        shape = request.spec.input_shape
    elif request.kind == "factory":
        module = factory.build(request)
        weights = factory.load_weights(request, module)
        file = Path(request.name)
        description = {
            "source": "factory",
            "name": f"{file.name}:{request.function}",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    else:
        module, shape, weights = library.load(request, progress)
        description = {"source": request.kind, "name": request.name, "classes": request.classes}
    assert shape is not None
    progress("exporting the float graph", 0, None)
    return Network(
        variant=request.variant,
        graph=export(module, request.variant, shape),
        original=lambda: partial(eager_output, module),
        original_name="eager torch",
        layers=partial(layer_outputs, module),
        params=_count(module),
        weights=_prepared(weights, request, shape),
        description=description | {"input_shape": list(shape)},
    )


def _from_onnx(request: Request, progress: Progress) -> Network:
    from edgecnn.graph.from_onnx import load_original, read  # brings libraries that only files need

    file = read(Path(request.name), request.input_shape, request.variant)
    weights = LoadedWeights(
        kind="own",
        description=f"weights of {Path(request.name).name}",
        preprocess=RECIPES["imagenet"],
        sha256=file.sha256,
        file_name=Path(request.name).name,
    )
    shape = shape_of(file.graph.input)
    network = Network(
        variant=request.variant,
        graph=file.graph,
        original=partial(load_original, file),
        original_name="the file in ONNX Runtime",
        layers=None,
        params=file.params,
        weights=_prepared(weights, request, shape),
        description={"source": "onnx", "name": Path(request.name).name, "input_shape": list(shape)},
        notes=file.notes,
    )
    return network if file.graph.precision == "fp32" else _quantized(network, file, progress)


def _quantized(network: Network, file: OnnxFile, progress: Progress) -> Network:
    """A network whose file is quantised, with its float twin and its canonical int8 graph."""
    from edgecnn.quantize.imported import bring, verify

    progress("comparing the quantised file with its canonical form", 0, None)
    imported = bring(file.graph, file.original)
    compared = verify(imported, network.original(), verification_inputs(network.weights.preprocess))
    return replace(
        network,
        graph=imported.graph,
        qdq=imported.qdq,
        imported=compared,
        notes=(*network.notes, *imported.notes),
    )


def _prepared(weights: LoadedWeights, request: Request, shape: tuple[int, ...]) -> LoadedWeights:
    """The weights' record with the preparation that fits the network's input, or that the user chose."""
    recipe = (request.preprocess or weights.preprocess).fitted(*shape[1:])
    return replace(weights, preprocess=recipe)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
