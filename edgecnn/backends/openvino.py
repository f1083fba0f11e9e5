"""OpenVINO on the CPU: the canonical graph as OpenVINO IR, ``model.xml`` and ``model.bin``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner
from edgecnn.target import Target

LAYOUT = "NCHW"
PACKAGES = ("openvino",)

# On CPUs that have bf16 the default computes fp32 models in it: neither the numbers nor the latency are fp32's.
_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compile(graph: Graph, target: Target, folder: Path) -> list[Path]:  # noqa: A001 (the verb of every back end)
    """Write ``model.xml`` and ``model.bin``."""
    model = ov.Core().read_model(graph.serialized)
    path = folder / "model.xml"
    ov.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def load(model: Path, target: Target, taps: Sequence[str] | None = None) -> Runner:
    """A function from one input (NCHW, float32) to the output, or to those of ``taps`` that the IR has."""
    core = ov.Core()
    loaded = core.read_model(str(model))
    known = {name: output for op in loaded.get_ops() for output in op.outputs() for name in output.get_names()}
    if taps is not None:
        loaded.add_outputs([known[name] for name in taps if name in known])
    compiled = core.compile_model(loaded, "CPU", _CONFIG)
    request = compiled.create_infer_request()
    names = taps if taps is not None else [compiled.outputs[0].get_any_name()]

    def run(x: np.ndarray) -> list[np.ndarray]:
        request.infer([x])
        return [
            np.array(request.get_tensor(name).data) if name in known else np.asarray(np.nan, np.float32)
            for name in names
        ]

    return run
