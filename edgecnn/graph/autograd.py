"""A canonical graph as a torch function with gradients.

Quantising has a gradient of 0 almost everywhere. Here it passes the gradient through where the value lies
within the integers' range and stops it outside (the straight-through estimator, arXiv 1308.3432): a Relu that
the quantisation enforces, and that the graph therefore leaves out, stops it just so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import census, clip_bounds
from edgecnn.graph.rewrite import constant

Forward = Callable[[torch.Tensor], torch.Tensor]
_Inputs = list[torch.Tensor]
_LIMITS = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127)}


def as_torch(graph: Graph, output: str | None = None) -> Forward:
    """A function from an input (1, C, H, W), float32, to the graph's output, or to the tensor ``output``.

    Integers are held as the float32 numbers that they are. Float, fp16 and QDQ graphs are taken, and those
    that mix int8 and float layers.

    Raises:
        ConversionError: operators that the canonical form does not have.
    """
    unknown = [(n.op_type, str(n.name)) for n in graph.model.graph if n.op_type not in _OPERATORS]
    if unknown:
        raise ConversionError(f"no gradient is known for {census(unknown)}")
    last = str(graph.output.name) if output is None else output
    known = {
        str(name): _tensor(value.const_value.numpy())
        for name, value in graph.model.graph.initializers.items()
        if value.const_value is not None
    }
    steps = []
    for node in graph.model.graph:
        if all(value is None or str(value.name) in known for value in node.inputs):
            # What follows from weights alone is the same for every image.
            with torch.no_grad():
                known[str(node.outputs[0].name)] = _evaluate(node, known)
        else:
            steps.append(node)

    def forward(x: torch.Tensor) -> torch.Tensor:
        values = {**known, str(graph.input.name): x}
        for node in steps:
            if last in values:
                break
            values[str(node.outputs[0].name)] = _evaluate(node, values)
        return values[last]

    return forward


def _tensor(array: np.ndarray) -> torch.Tensor:
    # A weight that is mapped from a file cannot be written to, of which torch would warn.
    return torch.from_numpy(np.array(array if array.dtype == np.int64 else array.astype(np.float32)))


def _evaluate(node: ir.Node, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    inputs = [values[str(value.name)] for value in node.inputs if value is not None]
    return _OPERATORS[node.op_type](node, inputs)


class _Quantize(torch.autograd.Function):
    """QuantizeLinear with one scale; the gradient passes where no value is cut off."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float, zero_point: float, low: int, high: int) -> Any:
        steps = x / scale
        ctx.scale = scale
        ctx.save_for_backward((steps >= low - zero_point) & (steps <= high - zero_point))
        return (steps.round() + zero_point).clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside / ctx.scale, None, None, None, None


def _quantize(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x, scale, zero_point = inputs
    dtype = node.inputs[2].dtype if node.inputs[2] is not None else None
    if scale.numel() != 1 or dtype not in _LIMITS:
        raise ConversionError(f"QuantizeLinear (node '{node.name}') is not of the canonical form")
    quantized: torch.Tensor = _Quantize.apply(x, scale.item(), zero_point.item(), *_LIMITS[dtype])  # type: ignore[no-untyped-call]
    return quantized


def _dequantize(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    stored, scale, zero_point = inputs
    if scale.ndim:
        along = [1] * stored.ndim
        along[node.attributes.get_int("axis", 1)] = -1
        scale, zero_point = scale.reshape(along), zero_point.reshape(along)
    return (stored - zero_point) * scale


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes.get_ints(name, default))


def _window(node: ir.Node, x: torch.Tensor, kernel: tuple[int, ...], fill: float) -> torch.Tensor:
    """The input padded, or cut, to what the windows of a convolution or pooling read."""
    strides, dilations = _ints(node, "strides", [1, 1]), _ints(node, "dilations", [1, 1])
    before = _ints(node, "pads", [0, 0, 0, 0])[:2]
    read = [
        (out - 1) * stride + dilation * (k - 1) + 1
        for out, stride, dilation, k in zip(
            shape_of(node.outputs[0])[2:], strides, dilations, kernel, strict=True
        )
    ]
    after = [all_ - top - side for all_, top, side in zip(read, before, x.shape[2:], strict=True)]
    return functional.pad(x, (before[1], after[1], before[0], after[0]), value=fill)


def _conv(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x, weight, *bias = inputs
    return functional.conv2d(
        _window(node, x, tuple(weight.shape[2:]), 0.0),
        weight,
        bias[0] if bias else None,
        stride=_ints(node, "strides", [1, 1]),
        dilation=_ints(node, "dilations", [1, 1]),
        groups=node.attributes.get_int("group", 1),
    )


def _gemm(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    a, b, *c = inputs
    attributes = node.attributes
    product = (a.T if attributes.get_int("transA", 0) else a) @ (
        b.T if attributes.get_int("transB", 0) else b
    )
    product = product * attributes.get_float("alpha", 1.0)
    return product + c[0] * attributes.get_float("beta", 1.0) if c else product


def _max_pool(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    kernel = tuple(_ints(node, "kernel_shape", []))
    windows = _window(node, inputs[0], kernel, -torch.inf)
    return functional.max_pool2d(
        windows, kernel, _ints(node, "strides", [1, 1]), dilation=_ints(node, "dilations", [1, 1])
    )


def _average_pool(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x = inputs[0]
    kernel, strides = tuple(_ints(node, "kernel_shape", [])), _ints(node, "strides", [1, 1])
    counted = _window(node, torch.ones_like(x[:, :1]), kernel, 0.0)  # padding is not
    total = functional.avg_pool2d(_window(node, x, kernel, 0.0), kernel, strides)
    return total / functional.avg_pool2d(counted, kernel, strides)


def _reduce_mean(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    axes = [int(axis) for axis in inputs[1]] if len(inputs) > 1 else _ints(node, "axes", [])
    axes = axes or list(range(inputs[0].ndim))
    return inputs[0].mean(axes, keepdim=bool(node.attributes.get_int("keepdims", 1)))


def _batch_norm(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x, scale, shift, mean, variance = inputs
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, shift, eps=epsilon)


def _lrn(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    attributes = node.attributes
    return functional.local_response_norm(
        inputs[0],
        attributes.get_int("size", 1),
        alpha=attributes.get_float("alpha", 1e-4),
        beta=attributes.get_float("beta", 0.75),
        k=attributes.get_float("bias", 1.0),
    )


def _clip(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    return inputs[0].clamp(*clip_bounds(node))


def _reshape(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    return inputs[0].reshape(shape_of(node.outputs[0]))


def _slice(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x = inputs[0]
    starts, ends, axes, steps = ([int(i) for i in values] for values in _in_full(inputs))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = x.index_select(axis, torch.from_numpy(np.arange(x.shape[axis])[start:end:step].copy()))
    return x


def _in_full(inputs: _Inputs) -> list[torch.Tensor]:
    """Starts, ends, axes and steps of a Slice."""
    given = inputs[1:]
    defaults = [torch.arange(len(given[0])), torch.ones_like(given[0])]
    return [*given, *defaults[len(given) - 2 :]]


def _pad(node: ir.Node, inputs: _Inputs) -> torch.Tensor:
    x = inputs[0]
    pads = constant(node.inputs[1])
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if pads is None:
        raise ConversionError(f"Pad (node '{node.name}') computes its padding")
    mode = node.attributes.get_string("mode", "constant")
    fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    around = np.zeros((x.ndim, 2), np.int64)
    around[range(x.ndim) if axes is None else axes] = pads.reshape(2, -1).T
    if mode == "constant":
        flat = [int(side) for pair in around[::-1] for side in pair]
        return functional.pad(x, flat, value=0.0 if fill is None else float(fill))
    for axis, pair in enumerate(around):
        if pair.any():
            index = np.pad(np.arange(x.shape[axis]), pair, mode="edge" if mode == "edge" else "reflect")
            x = x.index_select(axis, torch.from_numpy(index))
    return x


_OPERATORS: dict[str, Callable[[ir.Node, _Inputs], torch.Tensor]] = {
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda node, inputs: inputs[0],  # halves are held as float32 already
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(inputs, node.attributes.get_int("axis", 1)),
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean((2, 3), keepdim=True),
    "HardSwish": lambda node, inputs: functional.hardswish(inputs[0]),
    "LRN": _lrn,
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(
        inputs[0], node.attributes.get_float("alpha", 0.01)
    ),
    "MaxPool": _max_pool,
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce_mean,
    "Relu": lambda node, inputs: inputs[0].relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda node, inputs: inputs[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda node, inputs: inputs[0].softmax(node.attributes.get_int("axis", -1)),
    "Sub": lambda node, inputs: inputs[0] - inputs[1],
    "Tanh": lambda node, inputs: inputs[0].tanh(),
    "Transpose": lambda node, inputs: inputs[0].permute(_ints(node, "perm", [])),
}
