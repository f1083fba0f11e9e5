"""torch.nn.Module -> ONNX -> canonical float graph."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir.serde
import torch
from onnx import load_model_from_string

from edgecnn.errors import ConversionError, one_line
from edgecnn.graph.from_onnx.accept import check_operators
from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import canonicalize

# HardSwish entered at 14; 17 is the newest that every runtime the targets name reads without conversion.
OPSET = 17


def export(model: torch.nn.Module, name: str, input_shape: tuple[int, ...]) -> Graph:
    """Export a network in evaluation mode to a canonical fp32 graph of that name, for an NCHW input.

    The tracing exporter is used (``dynamo=False``): for the plain feed-forward networks of the zoo it gives
    the same graph as the newer one in an eighth of the time (0.5 s against 4.2 s for MobileNetV2). Whichever
    is used, ``edgecnn.check.float_graph`` compares the result with eager torch.

    Raises:
        ConversionError: torch cannot export the network; the message is the exporter's first line.
    """
    buffer = io.BytesIO()
    example = torch.zeros(input_shape)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _one_thread(), _lrn_as_one_node():
            # Its age, what it does not fold, branches: the comparison with eager torch decides.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model.eval(),
                (example,),
                buffer,  # type: ignore[arg-type]  # its annotation leaves out file objects
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["logits"],
            )
    except (Exception, SystemExit) as error:  # the exporter's many types, and those of the network's own code
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        shape = " x ".join(map(str, input_shape))
        raise ConversionError(
            f"torch cannot export {name}: {reason}",
            hint=f"its forward() must take one image tensor, {shape} here, and return one tensor, by a path "
            "that does not depend on values",
        ) from error
    proto = load_model_from_string(buffer.getvalue())
    check_operators(proto, OPSET)
    exported = onnx_ir.serde.deserialize_model(proto)
    exported.producer_name, exported.producer_version = "edgecnn", None
    exported.graph.name = name
    return canonicalize(Graph(exported, "fp32"))


def eager_output(model: torch.nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """The network's output for one input (1, C, H, W) in eager torch, as the only entry of a list."""
    try:
        with torch.no_grad(), _one_thread():
            output = model(torch.as_tensor(x))
    except (Exception, SystemExit) as error:  # the network's own code
        raise ConversionError(
            f"the network fails on an image: {type(error).__name__}: {one_line(error)}",
            hint="its forward() must take every image",
        ) from error
    while isinstance(output, (tuple, list, dict)) and len(output) == 1:  # as the exporter takes them apart
        [output] = output.values() if isinstance(output, dict) else output
    return [output.numpy()]


class _LrnNode(torch.autograd.Function):
    """What nn.LocalResponseNorm computes, exported as the one ONNX operator that it is."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
        with warnings.catch_warnings():
            # It asks whether x is empty.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)

    @staticmethod
    def symbolic(graph: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        node = graph.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=k)
        return node.setType(x.type())


@contextlib.contextmanager
def _lrn_as_one_node() -> Iterator[None]:
    """torch's exporter writes LocalResponseNorm as thirty operators; runtimes have one for it."""

    def forward(module: torch.nn.LocalResponseNorm, x: torch.Tensor) -> Any:
        return _LrnNode.apply(x, module.size, module.alpha, module.beta, module.k)  # type: ignore[no-untyped-call]

    original = torch.nn.LocalResponseNorm.forward
    torch.nn.LocalResponseNorm.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.LocalResponseNorm.forward = original  # type: ignore[method-assign]


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
