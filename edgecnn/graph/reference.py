"""The reference: a graph run operator by operator, as it is written.

ONNX Runtime with its graph optimisation off. Fused u8s8 kernels saturate on x86 CPUs without VNNI; the
unfused graph computes DequantizeLinear, the float operator and QuantizeLinear one after the other, and does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from onnx import helper, load_model_from_string

from edgecnn.graph.graph import Graph

Runner = Callable[[np.ndarray], list[np.ndarray]]


def load_reference(graph: Graph, taps: Sequence[str] | None = None, *, fused: bool = False) -> Runner:
    """A function from one input (NCHW, float32) to the graph's output, or to the tensors in ``taps``.

    ``fused`` leaves the optimisation on: faster, for a float graph that is a source of data, not a reference.
    """
    return load_onnx(graph.serialized, taps, fused=fused)


def load_onnx(
    serialized: bytes, taps: Sequence[str] | None = None, *, fused: bool, saturates: bool = True
) -> Runner:
    """A function from one input to an ONNX file's outputs, or to the tensors in ``taps``, on one thread.

    ``saturates`` as for :func:`open_session`.
    """
    if taps is not None:
        proto = load_model_from_string(serialized)
        del proto.graph.output[:]
        proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in taps)
        serialized = proto.SerializeToString()
    session = open_session(serialized, fused=fused, saturates=saturates)
    input_name = session.get_inputs()[0].name
    names = list(taps) if taps is not None else None

    def run(x: np.ndarray) -> list[np.ndarray]:
        return session.run(names, {input_name: x})  # type: ignore[no-any-return]

    return run


def open_session(serialized: bytes, *, fused: bool, saturates: bool = True) -> ort.InferenceSession:
    """ONNX Runtime on one thread of the CPU, with its graph optimisation on or off.

    Unless ``saturates``, fused kernels do without the pairwise u8s8 products that saturate on x86 CPUs
    without VNNI.
    """
    options = ort.SessionOptions()
    if not saturates:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Small layers gain nothing from a second thread, and lose much where another process wants the core.
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it says in red it also raises
    return ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
