"""The one image input of an .onnx file: its shape, its layout, its number format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgecnn.errors import ConfigError, ConversionError
from edgecnn.graph.from_onnx.accept import array_of, inputs_of
from edgecnn.graph.from_onnx.file import nodes, shown, tensors

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Channels of a greyscale, colour or colour and alpha image.
_IMAGE_CHANNELS = (1, 3, 4)


def widen_halves(model: ModelProto) -> bool:
    """Turn half precision into float32 throughout, in place; True where there was any.

    Weights keep the values that the file has. The arithmetic is float32's.
    """
    found = False
    for tensor in tensors(model):
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))
            found = True
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_datatype", "stash_type") and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
                found = True
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            found = True
    return found


def fix_input(model: ModelProto, shape: tuple[int, ...] | None) -> bool:
    """Make the input's shape static, in place: a batch of 1, other dynamic dimensions from ``shape``.

    Args:
        model: with one input.
        shape: of the whole input in the file's layout, None where only the batch may be dynamic.

    Returns:
        Whether anything was changed.

    Raises:
        ConfigError: ``shape`` is missing where it is needed, contradicts the file or is not an image's.
        ConversionError: the input is not a float image of rank 4 with a batch of 1.
    """
    [value] = inputs_of(model.graph)
    name, tensor = shown(value.name), value.type.tensor_type
    taken = "an image (1, channels, height, width) of float32 is taken"
    if not value.type.HasField("tensor_type") or tensor.elem_type != TensorProto.FLOAT:
        kinds = {number: text.lower() for text, number in TensorProto.DataType.items()}
        raise ConversionError(
            f"input '{name}' is of type {kinds.get(tensor.elem_type, 'unknown')}; {taken}",
            hint="export the network without what turns its input into numbers",
        )
    dims = _dims(value)
    if dims is not None and len(dims) != 4:
        raise ConversionError(
            f"input '{name}' has {len(dims)} dimensions {_text(dims)}; {taken}",
            hint="edgecnn compiles networks that take one image",
        )
    _check_shape(shape, name, dims)
    stated = dims if dims is not None else ("?",) * 4
    batch = 1 if isinstance(stated[0], str) else stated[0]
    fixed = tuple(shape) if shape is not None else (batch, *stated[1:])
    dynamic = [str(dim) for dim in fixed if isinstance(dim, str)]
    if dynamic:
        raise ConfigError(
            f"input '{name}' has dynamic dimensions: {_text(stated)}",
            hint=f"state its shape, such as --input-shape {_example(stated)}",
        )
    if fixed[0] != 1:
        raise ConversionError(
            f"input '{name}' has a batch of {fixed[0]}; edge artifacts take one image at a time",
            hint="export the network with a batch of 1, or a dynamic one",
        )
    if fixed == dims:
        return False
    del tensor.shape.dim[:]
    for size in fixed:
        tensor.shape.dim.add().dim_value = int(size)
    # What the file states of other shapes may hold for another input.
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
    return True


def give_channels_first(model: ModelProto) -> tuple[int, ...] | None:
    """Make an input (1, height, width, channels) into (1, channels, height, width), in place.

    Converters from TensorFlow and Keras give such inputs, and transpose them before the first layer. A
    Transpose to the old layout is put in front, so that the model can be run with either; the pair falls out
    of the canonical graph.

    Returns:
        The shape that the file has, None where its input is NCHW already.

    Raises:
        ConversionError: the channels are last, and more than a Transpose uses them so.
    """
    [value] = inputs_of(model.graph)
    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    users = [node for node in model.graph.node if value.name in node.input]
    if not users or not all(_is_transpose(node, TO_NCHW) for node in users):
        if shape[1] not in _IMAGE_CHANNELS and shape[3] in _IMAGE_CHANNELS:
            raise ConversionError(
                f"input '{shown(value.name)}' of shape {shape} seems to have its channels last",
                hint="convert with the input as NCHW (tf2onnx: --inputs-as-nchw NAME)",
            )
        return None
    channels_last = f"{value.name}:nhwc"
    for node in users:
        node.input[0] = channels_last
    first = helper.make_node("Transpose", [value.name], [channels_last], perm=TO_NHWC, name=channels_last)
    model.graph.node.insert(0, first)
    for dim, axis in zip(value.type.tensor_type.shape.dim, TO_NCHW, strict=True):
        dim.dim_value = shape[axis]
    del model.graph.value_info[:]
    return shape


def _is_transpose(node: NodeProto, perm: tuple[int, ...]) -> bool:
    given = next((tuple(item.ints) for item in node.attribute if item.name == "perm"), None)
    return node.op_type == "Transpose" and given == perm


def _check_shape(shape: tuple[int, ...] | None, name: str, dims: tuple[int | str, ...] | None) -> None:
    """Whether the shape that was asked for is an image's, and one that the file leaves open."""
    if shape is None:
        return
    text, stated = ",".join(map(str, shape)), dims if dims is not None else ("?",) * 4
    example = f"such as --input-shape {_example(stated)}"
    if len(shape) != 4 or min(shape) < 1:
        raise ConfigError(f"an input shape has four positive sizes, not {text}", hint=example)
    if any(isinstance(dim, int) and dim != size for dim, size in zip(stated, shape, strict=True)):
        raise ConfigError(
            f"input '{name}' has shape {_text(stated)}, which {text} contradicts",
            hint=f"leave --input-shape out, or give what fits, {example}",
        )


def _dims(value: ValueInfoProto) -> tuple[int | str, ...] | None:
    """Sizes, and names of dynamic dimensions, '?' where they have none; None where the rank is unknown."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.dim_value > 0 else shown(dim.dim_param) or "?"
        for dim in value.type.tensor_type.shape.dim
    )


def _text(dims: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, dims))})"


def _example(dims: Sequence[int | str]) -> str:
    """The shape with usual sizes where it is dynamic, in the layout that its channels suggest."""
    last = dims[3] in _IMAGE_CHANNELS and dims[1] not in _IMAGE_CHANNELS
    usual = (1, 224, 224, 3) if last else (1, 3, 224, 224)
    return ",".join(str(use if isinstance(dim, str) else dim) for dim, use in zip(dims, usual, strict=True))
