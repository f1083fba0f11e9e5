"""MobileNetV2 with its ImageNet weights as edgecnn makes it, and the same inputs for everybody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peers.environments import Inputs

from edgecnn.backends import RUNTIMES, backend
from edgecnn.data.sets import ImageStream, calibration_images
from edgecnn.graph.from_torch import export
from edgecnn.graph.graph import Graph
from edgecnn.quantize.quantize import quantize
from edgecnn.spec import Preprocess
from edgecnn.target import load_target
from edgecnn.zoo import build, make_spec, resolve, variant
from edgecnn.zoo.fetch import fetch
from edgecnn.zoo.weights import load_weights

MODEL = "mobilenet_v2"


@dataclass(frozen=True)
class Ours:
    """The network's graphs and how images become inputs."""

    float_graph: Graph
    """Canonical fp32 graph."""
    qdq_graph: Graph
    """Canonical int8 graph, calibrated on the photographs in the package."""
    recipe: Preprocess
    """Of the weights."""

    def files(self, work: Path) -> dict[tuple[str, str], list[Path]]:
        """Compiled files by runtime and precision, the entry file first, written to ``work``."""
        compiled = {}
        for runtime in RUNTIMES:
            for precision, graph in (("fp32", self.float_graph), ("int8", self.qdq_graph)):
                folder = work / "edgecnn" / f"{runtime}-{precision}"
                folder.mkdir(parents=True, exist_ok=True)
                compiled[runtime, precision] = backend(runtime).compile(graph, load_target(runtime), folder)
        return compiled


def calibration(recipe: Preprocess) -> ImageStream:
    """The photographs in the package that decide int8 ranges by default."""
    return ImageStream(tuple(calibration_images()), recipe)


def make() -> Ours:
    """Build, load, export and quantise, as ``edgecnn export mobilenet_v2 --precision int8`` does."""
    spec = make_spec(MODEL)
    model = build(spec)
    recipe = load_weights(spec, model, "imagenet").preprocess
    graph = export(model, variant(spec), spec.input_shape)
    return Ours(graph, quantize(graph, calibration(recipe)), recipe)


def inputs(work: Path) -> Inputs:
    """The checkpoint, and edgecnn's calibration photographs as arrays, for the other converters."""
    published = resolve(MODEL).weights
    assert published is not None
    recipe = published.preprocess
    work.mkdir(parents=True, exist_ok=True)
    given = Inputs(fetch(published.file), work / "calibration.npy", work / "samples.npy")
    images = np.concatenate(list(calibration(recipe))).transpose(0, 2, 3, 1)
    np.save(given.images, np.ascontiguousarray(images))
    samples = images[:20, 48:176, 48:176] * np.float32(recipe.std) + np.float32(recipe.mean)
    np.save(given.samples, np.ascontiguousarray(samples, dtype=np.float32))
    return given


def runner(runtime: str, model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Logits (1, classes) of an input (1, 3, H, W), computed by a model file of edgecnn's or of a peer's."""
    run = backend(runtime).load(model, load_target(runtime))
    return lambda x: run(x)[0]
