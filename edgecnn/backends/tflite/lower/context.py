"""What every lowering function works with: tensors by name, and the layout rule.

Rank-4 activations are NCHW in the graph and NHWC in TFLite; tensors of any other rank are as they are.
uint8 with zero point z is int8 with zero point z - 128: the same integers, shifted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecnn.backends.tflite.flatbuffer import Model, Operation, Tensor
from edgecnn.errors import ConversionError
from edgecnn.graph.graph import Graph, shape_of
from edgecnn.graph.operators import Operand, Operator

NCHW_TO_NHWC = (0, 2, 3, 1)
NHWC_TO_NCHW = (0, 3, 1, 2)


class Context:
    """A TFLite model being filled, addressed by the graph's operands."""

    def __init__(self) -> None:
        self.model = Model()
        self.nonnegative: set[str] = set()
        """Names of the activations that have no value below 0."""

    def add_input(self, name: str, graph: Graph) -> None:
        """Declare the graph's float32 input."""
        operand = Operand(name, shape_of(graph.input), np.dtype(np.float32))
        self.model.inputs.append(self.tensor(operand))

    def set_output(self, name: str) -> None:
        """Declare the tensor of that name as the model's output."""
        index = self.model.find(name)
        assert index is not None
        self.model.outputs.append(index)

    def tensor(self, operand: Operand) -> int:
        """The tensor of an activation, made on first use."""
        found = self.model.find(_tensor_name(operand))
        if found is not None:
            return found
        return self.model.add_tensor(
            Tensor(
                _tensor_name(operand),
                nhwc(operand.shape),
                _dtype(operand.dtype),
                _scale(operand),
                _zero_point(operand),
            )
        )

    def like(self, operand: Operand, name: str, shape: tuple[int, ...]) -> int:
        """A new intermediate tensor, of a shape in TFLite's layout, with another's type and parameters."""
        return self.model.add_tensor(
            Tensor(
                self.model.unique(name), shape, _dtype(operand.dtype), _scale(operand), _zero_point(operand)
            )
        )

    def same_scale(self, index: int, operand: Operand) -> bool:
        """Whether a tensor has the operand's scale and zero point."""
        tensor = self.model.tensors[index]
        return (tensor.scale, tensor.zero_point) == (_scale(operand), _zero_point(operand))

    def constant(self, name: str, values: np.ndarray, like: Operand | None = None, axis: int = 0) -> int:
        """A new constant tensor. ``values`` are in TFLite's layout; ``like`` gives the quantisation."""
        values = np.ascontiguousarray(values)
        scale = () if like is None else _scale(like)
        zero_point = () if like is None else _zero_point(like)
        if values.dtype == np.uint8:
            values = (values.astype(np.int16) - 128).astype(np.int8)
        tensor = Tensor(
            self.model.unique(name), values.shape, values.dtype.name, scale, zero_point, axis, data=values
        )
        return self.model.add_tensor(tensor)

    def weight(self, operand: Operand, node: str, values: np.ndarray, axis: int = 0) -> int:
        """A constant that arithmetic reads as float32 or int8: half precision is widened by DEQUANTIZE."""
        index = self.constant(operand.name, values, operand, axis)
        if values.dtype != np.float16:
            return index
        widened = Tensor(self.model.unique(f"{operand.name}:float32"), values.shape, "float32")
        result = self.model.add_tensor(widened)
        self.add("DEQUANTIZE", [index], [result], None, node)
        return result

    def add(self, code: str, inputs: list[int], outputs: list[int], options: Any, node: str) -> None:
        """Append one operation."""
        self.model.operations.append(Operation(code, tuple(inputs), tuple(outputs), options, node))


def nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in TFLite's layout of an activation's shape in ONNX's."""
    return tuple(shape[axis] for axis in NCHW_TO_NHWC) if len(shape) == 4 else tuple(shape)


def data_of(operator: Operator, position: int, what: str) -> Operand:
    """The constant at an input position.

    Raises:
        ConversionError: the input is absent or computed.
    """
    operand = operator.inputs[position] if position < len(operator.inputs) else None
    if operand is None or operand.data is None:
        raise unsupported(operator, f"its {what} is not a constant")
    return operand


def first(operator: Operator) -> Operand:
    """The operator's first input, which is never absent."""
    operand = operator.inputs[0]
    assert operand is not None
    return operand


def unsupported(operator: Operator, why: str) -> ConversionError:
    """The error for an operator whose form TFLite cannot express."""
    return ConversionError(f"TFLite cannot take {operator.op_type} (node '{operator.name}'): {why}")


def _tensor_name(operand: Operand) -> str:
    # A graph input or output that is quantised exists twice, in float and in int8.
    return operand.name if operand.scale is None else f"{operand.name}:int8"


def _dtype(dtype: np.dtype[Any]) -> str:
    return "int8" if dtype == np.uint8 else dtype.name


def _scale(operand: Operand) -> tuple[float, ...]:
    return () if operand.scale is None else tuple(float(value) for value in operand.scale)


def _zero_point(operand: Operand) -> tuple[int, ...]:
    if operand.zero_point is None:
        return ()
    shift = 128 if operand.dtype == np.uint8 else 0
    return tuple(int(value) - shift for value in operand.zero_point)
