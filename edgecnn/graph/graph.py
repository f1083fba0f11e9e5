"""The value every stage after export works on: one ONNX graph and the precision it is in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from edgecnn.errors import ConversionError

# Protocol buffers count their bytes in 31 bits.
_MAX_BYTES = 2**31 - 2**24


@dataclass(frozen=True)
class Graph:
    """A canonical ONNX graph with static shapes, one input (NCHW, float32) and one output.

    ``fp32`` graphs hold float operators only; ``fp16`` ones store their weights in half precision behind a
    Cast; ``int8`` ones are in the canonical QDQ form that ``edgecnn.quantize.form`` describes.
    """

    model: ir.Model = field(repr=False)
    """The graph. Treated as immutable: a rewrite works on ``copy()``."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    @cached_property
    def serialized(self) -> bytes:
        """The ONNX file's bytes; equal graphs give equal bytes.

        Raises:
            ConversionError: more than the 2 GB that one ONNX file can hold.
        """
        stored = [value.const_value for value in self.model.graph.initializers.values()]
        weight_bytes = sum(tensor.nbytes for tensor in stored if tensor is not None)
        if weight_bytes > _MAX_BYTES:
            raise ConversionError(
                f"{self.model.graph.name} has {weight_bytes / 1e9:.2f} GB of weights; "
                "an ONNX file ends at 2.15 GB",
                hint="use a smaller --width",
            )
        serialized: bytes = ir.to_proto(self.model).SerializeToString(deterministic=True)
        return serialized

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``serialized``, in hexadecimal."""
        return hashlib.sha256(self.serialized).hexdigest()

    @property
    def input(self) -> ir.Value:
        """The image input, NCHW."""
        return _only(list(self.model.graph.inputs), "input")

    @property
    def output(self) -> ir.Value:
        """The network's output."""
        return _only(list(self.model.graph.outputs), "output")

    def copy(self) -> ir.Model:
        """A model that may be changed without changing this one; weights are shared, not copied."""
        return self.model.clone()


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value.

    Raises:
        ConversionError: the shape is unknown or holds a symbolic dimension.
    """
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        raise ConversionError(
            f"tensor '{value.name}' has no static shape ({value.shape})",
            hint="edge targets need every dimension fixed; export with a fixed input shape",
        )
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]


def _only(values: list[ir.Value], what: str) -> ir.Value:
    if len(values) != 1:
        names = ", ".join(str(value.name) for value in values)
        raise ConversionError(
            f"the graph has {len(values)} {what}s ({names}); edgecnn compiles networks with one",
            hint=f"let the network have one {what}",
        )
    return values[0]
