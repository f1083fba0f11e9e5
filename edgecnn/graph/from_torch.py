"""torch.nn.Module -> ONNX -> canonical float graph."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import onnx_ir.serde
import torch
from onnx import load_model_from_string

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import canonicalize
from edgecnn.spec import ModelSpec

# HardSwish entered at 14; 17 is the newest that every runtime the targets name reads without conversion.
OPSET = 17


def export(model: torch.nn.Module, spec: ModelSpec) -> Graph:
    """Export a network in evaluation mode to a canonical fp32 graph.

    The tracing exporter is used (``dynamo=False``): for the plain feed-forward networks of the zoo it gives
    the same graph as the newer one in an eighth of the time (0.5 s against 4.2 s for MobileNetV2). Whichever
    is used, ``edgecnn.check.float_graph`` compares the result with eager torch.

    Raises:
        ConversionError: torch cannot export the network; the message is the exporter's first line.
    """
    buffer = io.BytesIO()
    example = torch.zeros(spec.input_shape)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _one_thread():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                model.eval(),
                (example,),
                buffer,  # type: ignore[arg-type]  # its annotation leaves out file objects
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["logits"],
            )
    except Exception as error:  # the exporter raises many types, some of them torch's private ones
        reason = str(error).partition("\n")[0]
        raise ConversionError(f"torch cannot export {spec.variant}: {reason}") from error
    exported = onnx_ir.serde.deserialize_model(load_model_from_string(buffer.getvalue()))
    exported.producer_name, exported.producer_version = "edgecnn", None
    exported.graph.name = spec.variant
    return canonicalize(Graph(exported, "fp32"))


def eager_output(model: torch.nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """The network's output for one input (1, C, H, W) in eager torch, as the only entry of a list."""
    with torch.no_grad(), _one_thread():
        return [model(torch.as_tensor(x)).numpy()]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One image at a time gains nothing from a second thread, and on a busy machine waits for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def layer_outputs(model: torch.nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """What each layer of a network computes for one input (1, C, H, W), in the order in which they run.

    A layer is a module without modules inside. One whose output goes into batch norm is left out, because the
    graph has the two folded into one.
    """
    outputs: list[np.ndarray] = []

    def record(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, torch.nn.BatchNorm2d) and outputs:
            outputs.pop()
        if isinstance(output, torch.Tensor):
            # A copy: the next layer may work in place.
            outputs.append(output.detach().numpy().copy())

    hooks = [
        module.register_forward_hook(record) for module in model.modules() if not list(module.children())
    ]
    try:
        with torch.no_grad():
            model(torch.as_tensor(x))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs
