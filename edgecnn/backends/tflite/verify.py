"""The types, shapes and scales that TFLite's kernels assume, checked before anything is written.

The runtime does not check them all: an int8 tensor into an operator with a float output corrupts memory
instead of raising. Rules: https://ai.google.dev/edge/litert/models/quantization_spec and the kernels'
``Prepare`` functions.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.backends.tflite.flatbuffer import Model, Operation, Tensor
from edgecnn.errors import ConversionError

_WEIGHTED = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Operators with weights and their output-channel dimension."""
_ONE_SCALE = frozenset(
    {
        "CONCATENATION",
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "RESHAPE",
        "TRANSPOSE",
        "PAD",
        "PADV2",
        "SLICE",
        "STRIDED_SLICE",
        "MAXIMUM",
        "MINIMUM",
    }
)
_ARITHMETIC = frozenset({"ADD", "SUB", "MUL"})
_RESCALING = frozenset({"MEAN", "HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU"})
_FLOAT_ONLY = frozenset({"LOCAL_RESPONSE_NORMALIZATION"})
_FIXED = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
_PARAMETERS = {
    "RESHAPE": (1,), "TRANSPOSE": (1,), "PAD": (1,), "PADV2": (1,), "MEAN": (1,), "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
}  # fmt: skip
"""Operators with int32 parameter tensors, and their positions."""
_BROADCASTING = _ARITHMETIC | {"MAXIMUM", "MINIMUM"}
_WINDOWS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D"})


def verify(model: Model) -> None:
    """Check every operation.

    Raises:
        ConversionError: the first rule that an operation breaks, with its node's name.
    """
    defined = {index for index, tensor in enumerate(model.tensors) if tensor.data is not None} | set(
        model.inputs
    )
    for op in model.operations:
        _require(op, all(i in defined for i in op.inputs), "reads a tensor before it is computed")
        _verify(op, [model.tensors[i] for i in op.inputs], model.tensors[op.outputs[0]])
        defined |= set(op.outputs)
    for tensor in model.tensors:
        if tensor.data is not None and tensor.data.shape != tensor.shape:
            raise ConversionError(
                f"constant '{tensor.name}' is {tensor.data.shape}, its tensor {tensor.shape}"
            )
        if tensor.dtype == "int8" and not tensor.scale:
            raise ConversionError(f"int8 tensor '{tensor.name}' has no scale")


def _verify(op: Operation, inputs: list[Tensor], result: Tensor) -> None:
    parameters = []
    positions = _PARAMETERS.get(op.code, ())
    for position in positions:
        parameter = inputs[position].data
        _require(op, inputs[position].dtype == "int32", "has a parameter that is not int32")
        _require(op, parameter is not None, "has a parameter that is computed")
        parameters.append(np.asarray(parameter))
    inputs = [tensor for index, tensor in enumerate(inputs) if index not in positions]
    x = inputs[0]
    shape = _shape(op, [tensor.shape for tensor in inputs], parameters)
    _require(op, shape == result.shape, f"gives {result.shape} from {[tensor.shape for tensor in inputs]}")
    if op.code == "QUANTIZE":
        _require(op, x.dtype in ("float32", "int8") and result.dtype == "int8", "must give int8")
        return
    if op.code == "DEQUANTIZE":
        _require(op, x.dtype in ("float16", "int8") and result.dtype == "float32", "must give float32")
        return
    _require(op, x.dtype == result.dtype, f"reads {x.dtype} but gives {result.dtype}")
    _require(op, x.dtype in ("float32", "int8"), f"has no {x.dtype} kernel")
    if op.code in _WEIGHTED:
        _verify_weighted(op, inputs, result)
        return
    _require(op, all(t.dtype == x.dtype for t in inputs), "mixes element types")
    if op.code in _ONE_SCALE:
        same = all((t.scale, t.zero_point) == (result.scale, result.zero_point) for t in inputs)
        _require(op, same, "must keep one scale and zero point")
    elif op.code in _FIXED and x.dtype == "int8":
        scale, zero_point = _FIXED[op.code]
        _require(
            op, result.scale == (scale,) and result.zero_point == (zero_point,), f"must give scale {scale}"
        )
    elif op.code in _FLOAT_ONLY:
        _require(op, x.dtype == "float32", "has no int8 kernel")
    elif op.code not in _ARITHMETIC | _RESCALING | set(_FIXED):
        raise ConversionError(f"{op.code} (node '{op.node}') has no rule to be checked by")


def _shape(
    op: Operation, inputs: list[tuple[int, ...]], parameters: list[np.ndarray]
) -> tuple[int, ...] | None:
    """The shape that the kernel computes; None where the inputs do not go together."""
    x = inputs[0]
    if op.code in _BROADCASTING:
        try:
            return np.broadcast_shapes(*inputs)
        except ValueError:
            return None
    if op.code in _WINDOWS:
        return _window_shape(op, inputs)
    if op.code == "FULLY_CONNECTED":
        return (*x[:-1], inputs[1][0])
    if op.code == "CONCATENATION":
        axis = op.options.axis
        rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
        return (*x[:axis], sum(shape[axis] for shape in inputs), *x[axis + 1 :]) if len(rest) == 1 else None
    if not parameters:
        return x
    parameter = parameters[0]
    if op.code in ("SLICE", "STRIDED_SLICE"):
        return _slice_shape(x, *parameters)
    if op.code == "TRANSPOSE":
        return tuple(x[axis] for axis in parameter)
    if op.code == "RESHAPE":
        return tuple(int(size) for size in parameter) if np.prod(parameter) == np.prod(x) else None
    if op.code == "MEAN":
        return tuple(1 if axis in parameter else size for axis, size in enumerate(x))
    return tuple(size + int(pads.sum()) for size, pads in zip(x, parameter, strict=True))


def _slice_shape(
    x: tuple[int, ...], begin: np.ndarray, reach: np.ndarray, strides: np.ndarray | None = None
) -> tuple[int, ...] | None:
    """Of begin and size, or of begin, end and strides; None where that is not inside the input."""
    size = reach if strides is None else -(-(reach - begin) // strides)
    end = begin + size if strides is None else reach
    inside = np.all(begin >= 0) and np.all(size >= 1) and np.all(end <= x)
    return tuple(int(length) for length in size) if inside else None


def _window_shape(op: Operation, inputs: list[tuple[int, ...]]) -> tuple[int, ...]:
    """(N, H, W, C) of a convolution or pooling; windows of weights (O, H, W, I) or (1, H, W, C)."""
    x, options = inputs[0], op.options
    if op.code in _WEIGHTED:
        _, height, width, _ = inputs[1]
        channels = inputs[1][_WEIGHTED[op.code]]
        reach = (height - 1) * options.dilationHFactor + 1, (width - 1) * options.dilationWFactor + 1
    else:
        reach, channels = (options.filterHeight, options.filterWidth), x[3]
    if options.padding == schema.Padding.SAME:
        reach = 1, 1
    height, width = (
        (size - length) // stride + 1
        for size, length, stride in zip(x[1:3], reach, (options.strideH, options.strideW), strict=True)
    )
    return (x[0], height, width, channels)


def _verify_weighted(op: Operation, inputs: list[Tensor], result: Tensor) -> None:
    x, weight, bias = inputs
    axis = _WEIGHTED[op.code]
    channels = weight.shape[axis]
    _require(op, bias.shape == (channels,), f"has a bias of shape {bias.shape} for {channels} channels")
    if op.code == "CONV_2D":
        groups, rest = divmod(x.shape[-1], weight.shape[-1])
        _require(op, rest == 0 and channels % groups == 0, "has groups that do not divide its channels")
    elif op.code == "DEPTHWISE_CONV_2D":
        _require(op, channels == x.shape[-1] * op.options.depthMultiplier, "has the wrong depth multiplier")
    else:
        _require(op, weight.shape[1] == x.shape[-1], f"multiplies {x.shape} by {weight.shape}")
    if x.dtype == "float32":
        _require(op, weight.dtype == bias.dtype == "float32", "mixes element types")
        return
    _require(op, weight.dtype == "int8" and bias.dtype == "int32", "needs int8 weights and int32 bias")
    _require(op, set(weight.zero_point) <= {0} and set(bias.zero_point) <= {0}, "needs zero points of 0")
    _require(op, len(weight.scale) in (1, channels), "needs one weight scale, or one a channel")
    _require(
        op, len(weight.scale) == 1 or weight.quantized_dimension == axis, "is quantised along another axis"
    )
    expected = np.float64(x.scale[0]) * np.asarray(weight.scale)
    _require(
        op, np.allclose(bias.scale, expected, rtol=1e-5), "needs bias scale = input scale x weight scale"
    )


def _require(op: Operation, holds: bool | np.bool_, complaint: str) -> None:
    if not holds:
        raise ConversionError(f"lowered {op.code} (node '{op.node}') {complaint}")
