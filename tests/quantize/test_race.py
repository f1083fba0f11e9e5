"""Two int8 graphs timed in turns by a real runtime."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from edgecnn.backends import backend
from edgecnn.graph.from_torch import export
from edgecnn.quantize.quantize import prepare
from edgecnn.quantize.race import race_on
from edgecnn.quantize.scheme import Scheme
from edgecnn.target import load_target


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite"])
def test_both_kinds_of_weights_are_timed(runtime: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 3, 32, 32)).astype(np.float32) for _ in range(4)]
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    prepared = prepare(export(network, "net", (1, 3, 32, 32)), images)
    race = race_on(load_target(runtime), backend(runtime), variant="net", macs=1)
    raced = race(prepared.qdq(), prepared.qdq(Scheme(per_channel=False)))
    assert raced.ratio_low <= raced.ratio <= raced.ratio_high
    assert raced.ratio == pytest.approx(raced.ms / raced.first_ms, rel=0.5)
