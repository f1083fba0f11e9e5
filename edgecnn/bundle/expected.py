"""What a bundle's graph gives for the verification photographs, so that any device can be held against it.

The outputs travel in the bundle, since neither the graph nor its weights do; the photographs travel with the
package. Where another version of it prepares them otherwise, their hash says so.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.artifact import Artifact
from edgecnn.check import Check, Outputs, float_outputs, int8_outputs
from edgecnn.data.sets import verification_inputs
from edgecnn.errors import ConfigError
from edgecnn.source.recipes import read_recipe

FILE = "expected.npz"


def write_expected(folder: Path, outputs: Outputs, images: Sequence[npt.NDArray[np.float32]]) -> None:
    """Write ``expected.npz`` into a bundle.

    Args:
        folder: the bundle's.
        outputs: what its graph gives for the photographs, and for int8 the float graph.
        images: the photographs as inputs, (1, C, H, W).
    """
    np.savez(
        folder / FILE,
        expected=np.concatenate(outputs.expected),
        exact=np.concatenate(outputs.exact),
        step=np.float64(outputs.step),
        inputs_sha256=np.array(inputs_digest(images)),
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
    if inputs_digest(images) != _read(artifact)[1]:
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
    expected, _ = _read(artifact)
    outputs: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
    if artifact.manifest["output"]["layout"] == "NHWC":
        outputs = outputs.transpose(0, 3, 1, 2)
    got = _single(outputs)
    stage = f"{artifact.precision} artifact on {device}"
    if artifact.precision == "int8":
        return int8_outputs(expected, got, stage)
    return float_outputs(expected.expected, got, stage, f"{artifact.precision} graph")


def _single(outputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Arrays (1, ...), one an image."""
    return [output[np.newaxis] for output in outputs]


def _read(artifact: Artifact) -> tuple[Outputs, str]:
    """The outputs, and the digest of the inputs that they belong to."""
    try:
        with np.load(artifact.path / FILE, allow_pickle=False) as held:
            outputs = Outputs(_single(held["expected"]), _single(held["exact"]), float(held["step"]))
            return outputs, str(held["inputs_sha256"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{artifact.path} has no outputs that a device could be held against", hint="export it again"
        ) from error
