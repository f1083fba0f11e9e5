"""What a bundle's graph gives for the verification photographs, so that any device can be held against it.

The outputs travel in the bundle, since neither the graph nor its weights do; the photographs travel with the
package. Where another version of it prepares them otherwise, their hash says so.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.artifact import Artifact
from edgecnn.check import Check, Outputs, float_outputs, int8_outputs, output_step
from edgecnn.data.sets import verification_inputs
from edgecnn.errors import ConfigError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import load_reference
from edgecnn.source.recipes import read_recipe

FILE = "expected.npz"


@dataclass(frozen=True)
class Expected:
    """Outputs for N photographs, as the graph has them (NCHW)."""

    graph: npt.NDArray[np.float32] = field(repr=False)
    """Of the graph that was compiled, (N, ...)."""
    exact: npt.NDArray[np.float32] = field(repr=False)
    """Of the float graph, (N, ...); the same where that was compiled."""
    step: float
    """Scale of an int8 graph's output; 0 for others."""
    inputs_sha256: str
    """Digest of the float32 inputs (N, C, H, W)."""


def expect(graph: Graph, compiled: Graph, images: Sequence[npt.NDArray[np.float32]]) -> Expected:
    """Run what was compiled, and for int8 the float graph too, on inputs (1, C, H, W)."""
    run = load_reference(compiled)
    outputs = np.concatenate([run(image)[0] for image in images])
    exact, step = outputs, 0.0
    if compiled.precision == "int8":
        run = load_reference(graph)
        exact = np.concatenate([run(image)[0] for image in images])
        step = output_step(compiled, outputs)
    return Expected(outputs, exact, step, inputs_digest(images))


def write_expected(folder: Path, expected: Expected) -> None:
    """Write ``expected.npz`` into a bundle."""
    np.savez(
        folder / FILE,
        graph=expected.graph,
        exact=expected.exact,
        step=np.float64(expected.step),
        inputs_sha256=np.array(expected.inputs_sha256),
    )


def inputs_digest(images: Sequence[npt.NDArray[np.float32]]) -> str:
    """SHA-256 of inputs (1, C, H, W), one after the other."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def check_inputs(artifact: Artifact) -> npt.NDArray[np.float32]:
    """The verification photographs as a bundle's runtime takes them, (N, C, H, W) or (N, H, W, C).

    Raises:
        ConfigError: this version prepares other inputs than those that the bundle's outputs belong to.
    """
    images = list(verification_inputs(read_recipe(str(artifact.path / "preprocess.json"))))
    if inputs_digest(images) != _read(artifact).inputs_sha256:
        raise ConfigError(
            f"{artifact.path} was made by a version with other verification photographs",
            hint="export it again with this version",
        )
    joined = np.concatenate(images)
    return joined.transpose(0, 2, 3, 1) if artifact.manifest["input"]["layout"] == "NHWC" else joined


def check_device(artifact: Artifact, file: Path, device: str) -> Check:
    """Hold what a device gave for `check_inputs` against the graph.

    Args:
        artifact: the bundle.
        file: ``.npy`` of its outputs, (N, ...), in the runtime's layout.
        device: its name, for the record.

    Raises:
        ParityError: the device computes something else.
    """
    expected = _read(artifact)
    outputs: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
    if artifact.manifest["output"]["layout"] == "NHWC":
        outputs = outputs.transpose(0, 3, 1, 2)
    got = [output[np.newaxis] for output in outputs]
    reference = [output[np.newaxis] for output in expected.graph]
    stage = f"{artifact.precision} artifact on {device}"
    if artifact.precision != "int8":
        return float_outputs(reference, got, stage, f"{artifact.precision} graph")
    exact = [output[np.newaxis] for output in expected.exact]
    return int8_outputs(Outputs(reference, expected.step, lambda: exact), got, stage)


def _read(artifact: Artifact) -> Expected:
    try:
        with np.load(artifact.path / FILE, allow_pickle=False) as held:
            return Expected(held["graph"], held["exact"], float(held["step"]), str(held["inputs_sha256"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{artifact.path} has no outputs that a device could be held against", hint="export it again"
        ) from error
