"""A network that devices of every kind compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgecnn import pipeline
from edgecnn.artifact import Artifact
from edgecnn.bundle.expected import FILE, check_inputs
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.errors import MissingDependency, WeightsError

_IMAGES = 3


@dataclass(frozen=True)
class Known:
    """A bundle, and what it gives here for some photographs."""

    artifact: Artifact
    here: npt.NDArray[np.float32]
    """Logits (N, 1000)."""
    step: float
    """Of the output's scale."""

    def job(self, outputs: Path, **changes: Any) -> Job:
        """One that leaves the logits there."""
        return job_of(self.artifact, outputs, **changes)

    def is_given_by(self, outputs: Path) -> bool:
        """Whether each of those logits is within one step of what it is here."""
        there = np.load(outputs)
        assert there.shape == self.here.shape
        return bool(np.abs(there - self.here).max() <= 1.001 * self.step)


def job_of(artifact: Artifact, outputs: Path, **changes: Any) -> Job:
    a = artifact
    given = np.ascontiguousarray(check_inputs(artifact)[:_IMAGES])
    fields: dict[str, Any] = {"min_time_s": 0.1, "min_runs": 5, "inputs": given, "outputs": outputs}
    return Job(
        a.model, a.runtime, a.target, a.variant, a.precision, a.macs, options=a.options, **fields | changes
    )


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """MobileNetV2 in int8, for TFLite."""
    folder = tmp_path_factory.mktemp("mobilenet")
    try:
        [artifact] = pipeline.export(
            "mobilenet_v2", ["tflite"], precision="int8", measure=False, output=folder / "bundles"
        )
    except (MissingDependency, WeightsError) as error:
        pytest.skip(str(error))
    LOCAL.measure(job_of(artifact, folder / "here.npy"))
    here = np.load(folder / "here.npy")
    with np.load(artifact.path / FILE) as held:
        step = float(held["step"])
    assert np.ptp(here) > 50 * step  # or anything would be within one step of it
    return Known(artifact, here, step)
