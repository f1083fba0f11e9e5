"""What is judged: a classifier that can be run, and a name for exactly what it computes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn.agent.host import facts
from edgecnn.artifact import Artifact
from edgecnn.backends import backend
from edgecnn.errors import ConfigError, EdgeCNNError
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.progress import Progress, silent
from edgecnn.source.recipes import read_recipe
from edgecnn.source.request import make_request
from edgecnn.spec import Preprocess
from edgecnn.target import Target
from edgecnn.versions import version_of

if TYPE_CHECKING:
    from edgecnn.source.load import Network

_AGAINST = "pass --against with an fp32 bundle of the same network"
_REFERENCE_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Classifier:
    """A network whose output is one value a class, ready to be loaded."""

    name: str
    """What people call it: ``mobilenet_v2-1.0-224 tflite int8``."""
    identity: str
    """SHA-256 over all that decides what it gives for an input: its files or graph, the runtime and its
    version, and the processor, whose integer kernels may differ."""
    load: Callable[[], Runner] = field(repr=False)
    """Loads it: a function from one input (NCHW, float32) to its output. Each thread has its own."""
    size_bytes: int
    """What one loaded copy takes, roughly."""
    recipe: Preprocess
    """How an image becomes its input."""
    labels: tuple[str, ...] | None = field(repr=False)
    """Names of its outputs, where they are known."""
    outputs: int
    """Number of classes."""

    @property
    def key(self) -> str:
        """SHA-256 over all that decides what it gives for an image, in hexadecimal."""
        return _sha256([self.identity, self.recipe.to_json()])

    def prepared(self, recipe: Preprocess, *, bgr: bool = False) -> Classifier:
        """The same network, fed otherwise: by another recipe, or with red and blue changed over."""
        if not bgr:
            return replace(self, recipe=recipe)
        return replace(
            self, recipe=recipe, identity=_sha256([self.identity, "bgr"]), load=lambda: _bgr(self.load())
        )


def of_bundle(artifact: Artifact) -> Classifier:
    """A bundle's network on the bundle's own runtime.

    Raises:
        ConfigError: it is no classifier.
        MissingDependency: its runtime is not installed.
    """
    module = backend(artifact.runtime)
    target = Target(
        name=artifact.target,
        description="",
        runtime=artifact.runtime,
        device="local",
        precisions=(artifact.precision,),
        options=artifact.options,
    )
    files = [artifact.manifest["files"][path.name]["sha256"] for path in _model_files(artifact)]
    labels = artifact.path / "labels.txt"
    name = f"{artifact.variant} {artifact.target} {artifact.precision}"
    return Classifier(
        name=name,
        identity=_identity(artifact.runtime, module.PACKAGES, artifact.options, files),
        load=partial(module.load, artifact.model, target),
        size_bytes=sum(path.stat().st_size for path in _model_files(artifact)),
        recipe=read_recipe(str(artifact.path / "preprocess.json")),
        labels=tuple(labels.read_text(encoding="utf-8").splitlines()) if labels.exists() else None,
        outputs=_classes(name, artifact.manifest["output"]["shape"]),
    )


def of_graph(
    name: str, graph: Graph, recipe: Preprocess, labels: tuple[str, ...] | None, *, fused: bool
) -> Classifier:
    """A graph in ONNX Runtime.

    Args:
        name: what people call it.
        graph: canonical, of any precision.
        recipe: how an image becomes its input.
        labels: names of its outputs, where they are known.
        fused: whether ONNX Runtime may fuse it; an int8 graph is fused only where its own rounding of each
            operator need not be kept.

    Raises:
        ConfigError: it is no classifier.
    """
    return Classifier(
        name=name,
        identity=_graph_identity(graph.digest, fused=fused),
        load=partial(load_reference, graph, fused=fused),
        size_bytes=len(graph.serialized),
        recipe=recipe,
        labels=labels,
        outputs=_classes(name, shape_of(graph.output)),
    )


def of_network(network: Network) -> Classifier:
    """The float graph of a network, fused by ONNX Runtime.

    Raises:
        ConfigError: it is no classifier.
    """
    weights = network.weights
    name = f"{network.variant} fp32"
    return of_graph(name, network.graph, weights.preprocess, weights.labels, fused=True)


def float_of(artifact: Artifact, judged: Classifier, progress: Progress = silent) -> Classifier:
    """The float network that a bundle was made from, made again from the command in its manifest.

    It is made when it is loaded, and only used if its graph is the one that the manifest names; what it is
    known to have said on images is found without it.

    Args:
        artifact: the bundle.
        judged: its classifier.
        progress: told while the network is made.

    Raises:
        ConfigError: the manifest does not name the float graph.
    """
    digest = artifact.manifest.get("float_graph_sha256")
    if not isinstance(digest, str):
        raise ConfigError(
            f"{artifact.path} does not name the float network that it was made from",
            hint=f"export it again, or {_AGAINST}",
        )

    @cache
    def graph() -> Graph:
        return _rebuilt(artifact, digest, progress)

    return Classifier(
        name=f"{artifact.variant} fp32",
        identity=_graph_identity(digest, fused=True),
        load=lambda: load_reference(graph(), fused=True),
        size_bytes=4 * int(artifact.manifest["params"]),
        recipe=judged.recipe,
        labels=judged.labels,
        outputs=judged.outputs,
    )


def _rebuilt(artifact: Artifact, digest: str, progress: Progress) -> Graph:
    from edgecnn.source.load import load  # brings torch, which a bundle does without

    progress("making the fp32 network again", 0, None)
    try:
        graph = load(make_request(**_request_of(artifact.manifest["command"])), progress).graph
    except EdgeCNNError as error:
        raise type(error)(
            f"the fp32 network to compare with cannot be made: {error}", hint=_AGAINST
        ) from error
    if graph.digest != digest:
        raise ConfigError(
            f"what `{' '.join(artifact.manifest['command'][:3])}` gives now is not the network that "
            f"{artifact.path} was made from",
            hint=f"its file, its weights or a tool have changed since; {_AGAINST}",
        )
    return graph


_TYPES: dict[str, Callable[[str], Any]] = {
    "width": float,
    "resolution": int,
    "classes": int,
    "in_channels": int,
    "input_shape": str,
    "weights": str,
    "preprocess": str,
}
"""Arguments of ``make_request``, from the words of a command."""


def _request_of(command: Sequence[str]) -> dict[str, Any]:
    """The arguments of ``make_request`` in ``edgecnn export MODEL --width 0.5 ...``."""
    given: dict[str, Any] = {"model": command[2]}
    for option, value in pairwise(command):
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name in _TYPES:
            given[name] = _TYPES[name](value)
    return given


def _model_files(artifact: Artifact) -> tuple[Any, ...]:
    return (artifact.model, *artifact.companions)


def _classes(name: str, shape: Sequence[int]) -> int:
    classes = math.prod(shape)
    if classes != max(shape, default=0):
        shown = " x ".join(map(str, shape))
        raise ConfigError(
            f"{name} gives {shown} values, not one a class", hint="accuracy is a classifier's: 1 x classes"
        )
    return classes


def _graph_identity(digest: str, *, fused: bool) -> str:
    return _identity(_REFERENCE_RUNTIME, (_REFERENCE_RUNTIME,), {"fused": fused}, [digest])


def _identity(runtime: str, packages: Sequence[str], options: dict[str, Any], files: list[str]) -> str:
    machine = facts()
    processor = [machine["cpu_arch"], machine["cpu_model"], machine["cpu_features"]]
    return _sha256([runtime, [version_of(name) for name in packages], options, files, processor])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _bgr(run: Runner) -> Runner:
    def changed_over(x: np.ndarray) -> list[np.ndarray]:
        return run(np.ascontiguousarray(x[:, ::-1]))

    return changed_over
