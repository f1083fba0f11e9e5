"""A TFLite model under construction, and its bytes.

Schema: tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3, as generated in ``ai_edge_litert``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgecnn.errors import ConversionError

# Runtimes map the file and hand weight pointers to SIMD kernels.
_ALIGNMENT = 16
_SCHEMA_VERSION = 3
_FILE_IDENTIFIER = b"TFL3"
_MAX_BYTES = 2**31 - 2**20

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the model, in TFLite's layout (NHWC, weights OHWI or 1HWC)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """numpy's name of the element type."""
    scale: tuple[float, ...] = ()
    """Empty where the tensor is not quantised."""
    zero_point: tuple[int, ...] = ()
    quantized_dimension: int = 0
    data: np.ndarray | None = field(default=None, repr=False, compare=False)
    """Values of a constant."""


@dataclass(frozen=True)
class Operation:
    """One operator: its builtin code's name, tensor indices (-1: absent) and options."""

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    """An ``...OptionsT`` object of the schema, or None."""
    node: str
    """Name of the graph node it came from, for messages."""


@dataclass
class Model:
    """Tensors and operations in order; filled by the lowering, frozen into bytes by ``serialize``."""

    tensors: list[Tensor] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    _by_name: dict[str, int] = field(default_factory=dict)

    def add_tensor(self, tensor: Tensor) -> int:
        """Index of a new tensor; names are unique."""
        assert tensor.name not in self._by_name, tensor.name
        self.tensors.append(tensor)
        self._by_name[tensor.name] = len(self.tensors) - 1
        return len(self.tensors) - 1

    def find(self, name: str) -> int | None:
        """Index of the tensor with that name."""
        return self._by_name.get(name)

    def unique(self, name: str) -> str:
        """The name, with a number behind it where it is taken."""
        candidate, number = name, 1
        while candidate in self._by_name:
            number += 1
            candidate = f"{name}_{number}"
        return candidate


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """The generated ``BufferT.Pack`` aligns to one byte only."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.data is not None:
            raw = np.ascontiguousarray(self.data).reshape(-1).view(np.uint8).data
            builder.StartVector(1, len(raw), _ALIGNMENT)
            start = builder.Head() - len(raw)
            builder.head = start
            memoryview(builder.Bytes)[start : start + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def serialize(model: Model, name: str) -> memoryview:
    """The bytes of a ``.tflite`` file. Equal models give equal bytes.

    Raises:
        ConversionError: more than the 2 GB that the format's offsets reach.
    """
    weight_bytes = sum(tensor.data.nbytes + 64 for tensor in model.tensors if tensor.data is not None)
    if weight_bytes > _MAX_BYTES:
        raise ConversionError(
            f"{name} has {weight_bytes / 1e9:.2f} GB of weights; a TFLite file ends at 2.15 GB",
            hint="use --precision int8 or a smaller --width",
        )
    codes = sorted({(op.code, _version(model, op)) for op in model.operations})
    buffers = [_AlignedBuffer()]  # buffer 0 is the empty one, for every tensor that is computed
    tensors = []
    for tensor in model.tensors:
        packed = schema.TensorT()
        packed.name, packed.shape, packed.type = tensor.name, list(tensor.shape), _TYPES[tensor.dtype]
        packed.hasRank = True
        if tensor.data is not None:
            packed.buffer = len(buffers)
            buffer = _AlignedBuffer()
            buffer.data = tensor.data
            buffers.append(buffer)
        if tensor.scale:
            packed.quantization = schema.QuantizationParametersT()
            packed.quantization.scale = np.asarray(tensor.scale, np.float32)
            packed.quantization.zeroPoint = np.asarray(tensor.zero_point, np.int64)
            packed.quantization.quantizedDimension = tensor.quantized_dimension
        tensors.append(packed)
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors = name, tensors
    subgraph.inputs, subgraph.outputs = model.inputs, model.outputs
    subgraph.operators = [_operator(model, op, codes) for op in model.operations]
    packed_model = schema.ModelT()
    packed_model.version, packed_model.description = _SCHEMA_VERSION, "edgecnn"
    packed_model.subgraphs, packed_model.buffers = [subgraph], buffers
    packed_model.operatorCodes = [_operator_code(code, version) for code, version in codes]
    packed_model.signatureDefs = [_signature(model)]
    builder = flatbuffers.Builder(weight_bytes + 1024 * (len(tensors) + len(model.operations) + 16))
    builder.Finish(packed_model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def _operator(model: Model, op: Operation, codes: list[tuple[str, int]]) -> Any:
    packed = schema.OperatorT()
    packed.opcodeIndex = codes.index((op.code, _version(model, op)))
    packed.inputs, packed.outputs = list(op.inputs), list(op.outputs)
    if op.options is not None:
        packed.builtinOptions = op.options
        packed.builtinOptionsType = getattr(
            schema.BuiltinOptions, type(op.options).__name__.removesuffix("T")
        )
    return packed


def _operator_code(code: str, version: int) -> Any:
    packed = schema.OperatorCodeT()
    packed.builtinCode = getattr(schema.BuiltinOperator, code)
    # Readers from before 2020 know only this one-byte field.
    packed.deprecatedBuiltinCode = min(packed.builtinCode, 127)
    packed.version = version
    return packed


# Operator versions (lite/tools/versioning/op_version.cc): the first that takes int8, where it is not 1.
_INT8_VERSION = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 2, "TRANSPOSE": 2, "SOFTMAX": 2,
    "ADD": 2, "SUB": 2, "MUL": 2, "CONCATENATION": 2, "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2, "PAD": 2,
    "PADV2": 2, "MEAN": 2, "LOGISTIC": 2, "TANH": 2, "RELU": 2, "RELU6": 2, "MAXIMUM": 2, "MINIMUM": 2,
    "LEAKY_RELU": 2, "SLICE": 2, "STRIDED_SLICE": 2,
}  # fmt: skip


def _version(model: Model, op: Operation) -> int:
    first, result = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    if op.code == "DEQUANTIZE" and first.dtype == "float16":
        return 3
    if op.code == "QUANTIZE" and first.dtype == result.dtype:
        return 2
    if op.code == "DEPTHWISE_CONV_2D" and first.dtype == "float32":
        return 2 if max(op.options.dilationHFactor, op.options.dilationWFactor) > 1 else 1
    return _INT8_VERSION.get(op.code, 1) if first.dtype == "int8" else 1


def _signature(model: Model) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    for indices, field_name in ((model.inputs, "inputs"), (model.outputs, "outputs")):
        entries = []
        for index in indices:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = model.tensors[index].name, index
            entries.append(entry)
        setattr(signature, field_name, entries)
    return signature
