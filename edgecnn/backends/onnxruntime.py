"""ONNX Runtime on the CPU: the canonical graph itself is the artifact; the runtime fuses it when it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import helper, load_model_from_string

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner
from edgecnn.target import Target

LAYOUT = "NCHW"
PACKAGES = ("onnxruntime",)


def compile(graph: Graph, target: Target, folder: Path) -> list[Path]:
    """Write ``model.onnx``."""
    path = folder / "model.onnx"
    path.write_bytes(graph.serialized)
    return [path]


def load(model: Path, target: Target, taps: Sequence[str] | None = None) -> Runner:
    """A function from one input (NCHW, float32) to the output, or to the tensors named in ``taps``."""
    serialized = model.read_bytes()
    outputs = None
    if taps is not None:
        proto = load_model_from_string(serialized)
        computed = {name for node in proto.graph.node for name in node.output}
        outputs = [f"{name}:dequantized" if f"{name}:dequantized" in computed else name for name in taps]
        del proto.graph.output[:]
        proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
        serialized = proto.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: np.ndarray) -> list[np.ndarray]:
        return session.run(outputs, {name: x})  # type: ignore[no-any-return]

    return run
