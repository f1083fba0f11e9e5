"""Networks as edgecnn makes them, and the same inputs for everybody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peers.environments import Given

from edgecnn.backends import RUNTIMES, backend
from edgecnn.data.labelled import FilePictures, Inputs
from edgecnn.data.sets import Images, calibration_images
from edgecnn.fetch.fetch import fetch
from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.quantize.quantize import Prepared, prepare
from edgecnn.spec import Preprocess
from edgecnn.target import load_target
from edgecnn.zoo import build, make_spec, resolve, variant
from edgecnn.zoo.weights import load_weights

MODEL = "mobilenet_v2"


@dataclass(frozen=True)
class Ours:
    """The network's graphs and how images become inputs."""

    float_graph: Graph
    """Canonical fp32 graph."""
    prepared: Prepared
    """The same, calibrated."""
    qdq_graph: Graph
    """Canonical int8 graph."""
    recipe: Preprocess
    """Of the weights."""

    def files(self, folder: Path) -> dict[tuple[str, str], list[Path]]:
        """Compiled files by runtime and precision, the entry file first, written below ``folder``."""
        compiled = {}
        for runtime in RUNTIMES:
            for precision, graph in (("fp32", self.float_graph), ("int8", self.qdq_graph)):
                place = folder / f"{runtime}-{precision}"
                place.mkdir(parents=True, exist_ok=True)
                compiled[runtime, precision] = backend(runtime).compile(graph, load_target(runtime), place)
        return compiled


def calibration(recipe: Preprocess, photos: Sequence[Path] | None = None) -> Inputs:
    """Photographs that decide int8 ranges: by default those in the package."""
    return Inputs(FilePictures(tuple(calibration_images() if photos is None else photos)), recipe)


def make(model: str = MODEL, photos: Sequence[Path] | None = None) -> Ours:
    """Build, load the ImageNet weights, export and quantise, as ``edgecnn export --precision int8`` does."""
    spec = make_spec(model)
    network = build(spec)
    recipe = load_weights(spec, network, "imagenet").preprocess
    return quantized(export(network, variant(spec), spec.input_shape), calibration(recipe, photos), recipe)


def quantized(graph: Graph, images: Images, recipe: Preprocess) -> Ours:
    """Both graphs of a network that was exported."""
    prepared = prepare(graph, images)
    return Ours(graph, prepared, prepared.qdq(), recipe)


def inputs(work: Path, model: str = MODEL, photos: Sequence[Path] | None = None) -> Given:
    """The checkpoint, and edgecnn's calibration photographs as arrays, for the other converters."""
    published = resolve(model).weights
    assert published is not None
    recipe = published.preprocess
    folder = work / "inputs" / (model if photos is None else f"{model}-{len(photos)}-photographs")
    folder.mkdir(parents=True, exist_ok=True)
    given = Given(model, fetch(published.file), folder / "calibration.npy", folder / "samples.npy")
    images = np.concatenate(list(calibration(recipe, photos))).transpose(0, 2, 3, 1)
    np.save(given.images, np.ascontiguousarray(images))
    samples = images[:20, 48:176, 48:176] * np.float32(recipe.std) + np.float32(recipe.mean)
    np.save(given.samples, np.ascontiguousarray(samples, dtype=np.float32))
    return given


def runner(runtime: str, model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Logits (1, classes) of an input (1, 3, H, W), computed by a model file of edgecnn's or of a peer's."""
    run = backend(runtime).load(model, load_target(runtime))
    return lambda x: run(x)[0]
