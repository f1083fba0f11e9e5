"""ONNX Runtime on the CPU: the canonical graph itself is the artifact; the runtime fuses it when it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import load_model_from_string

from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner, load_onnx
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
    if taps is not None:
        computed = {name for node in load_model_from_string(serialized).graph.node for name in node.output}
        taps = [f"{name}:dequantized" if f"{name}:dequantized" in computed else name for name in taps]
    return load_onnx(serialized, taps, fused=True)
