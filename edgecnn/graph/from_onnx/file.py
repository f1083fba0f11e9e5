"""An .onnx file and the data beside it, read without leaving the file's folder."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from edgecnn.errors import ConfigError, ConversionError

# A protobuf message holds no more; larger networks are no edge networks.
MAX_BYTES = 2**31 - 1


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        ConfigError: no such file, not a regular one, or not readable.
        ConversionError: 2 GB and more.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path} is a folder", hint="name the .onnx file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a regular file", hint="name an .onnx file")
        if status.st_size > MAX_BYTES:
            raise _too_large(status.st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}", hint="check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read: {reason}", hint="check its permissions") from error


def parse(data: bytes, path: Path) -> ModelProto:
    """The model that the bytes of ``path`` hold; external data are not read yet.

    Raises:
        ConversionError: they hold none.
    """
    if data.startswith(b"version https://git-lfs"):
        raise ConversionError(f"{path} is a Git LFS pointer, not the model itself", hint="run `git lfs pull`")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise _no_model(data, path) from error
    if not model.ir_version or not model.graph.node or not model.opset_import or not _is_text(model):
        raise _no_model(data, path)
    return model


def take_in_external_data(model: ModelProto, folder: Path) -> bool:
    """Move tensors stored in files beside the model into it; True where there were any.

    All places and sizes are checked before any data are read. Only regular files inside ``folder`` are
    opened, where links have been followed.

    Raises:
        ConversionError: a file is missing, lies elsewhere or is too short, or all together exceed 2 GB.
    """
    found = [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    places = [_place(tensor, folder) for tensor in found]
    total = model.ByteSize() + sum(size for _, _, size in places)
    if total > MAX_BYTES:
        raise _too_large(total)
    for tensor, (file, offset, size) in zip(found, places, strict=True):
        try:
            with file.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(size)
        except OSError as error:
            raise ConversionError(f"external data file {file} cannot be read: {error.strerror}") from error
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return bool(found)


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that the model stores: initialisers and nodes' attributes, in functions too."""
    yield from model.graph.initializer
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the graph and of the model's own functions."""
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def label(node: NodeProto) -> str:
    """What a message calls a node: its operator, and its name or, where it has none, its output's."""
    return f"{node.op_type} (node '{shown(node.name or ' '.join(node.output))}')"


def shown(text: str, limit: int = 80) -> str:
    """A name or text from the file, fit for one line of a message."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= limit else f"{printable[: limit - 3]}..."


def _is_text(message: Message) -> bool:
    """Whether all strings in a message are UTF-8; protobuf gives those that are not as bytes.

    The values of attributes are bytes to protobuf, and text in all of ONNX's own operators.
    """
    if isinstance(message, AttributeProto):
        try:
            b"".join((message.s, *message.strings)).decode()
        except UnicodeDecodeError:
            return False
    for kind, value in message.ListFields():
        if kind.type == FieldDescriptor.TYPE_STRING:
            strings = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(string, str) for string in strings):
                return False
        elif kind.type == FieldDescriptor.TYPE_MESSAGE:
            messages = [value] if isinstance(value, Message) else value
            if not all(map(_is_text, messages)):
                return False
    return True


def _place(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """File, offset and size in bytes of a tensor's external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what, location = f"external data of '{shown(tensor.name)}'", entries.get("location", "")
    beside = "the data files of a model lie in its folder, or below it"
    for path in (PurePosixPath(location), PureWindowsPath(location)):
        if path.anchor or ".." in path.parts or not path.parts or "\0" in location:
            raise ConversionError(f"{what} lie outside the model's folder: '{shown(location)}'", hint=beside)
    root = os.path.realpath(folder)
    file = Path(os.path.realpath(os.path.join(root, location)))
    if not file.is_relative_to(root):
        raise ConversionError(
            f"{what} lie behind a link out of the model's folder: '{shown(location)}'",
            hint="copy the model and its data files, not links, into one folder",
        )
    try:
        status = file.stat()
    except OSError as error:
        raise ConversionError(
            f"{what} are missing: there is no file {shown(str(folder / location))}",
            hint="copy it beside the .onnx file, under the name it was exported with",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConversionError(f"{what} are not in a regular file: '{shown(location)}'", hint=beside)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        size = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{what} are described wrongly", hint="export the model again") from error
    if min(tensor.dims, default=0) < 0 or offset < 0 or ("length" in entries and length != size):
        raise ConversionError(
            f"{what}: shape {tuple(tensor.dims)} needs {size} bytes, the model states "
            f"offset {offset} and length {length}",
            hint="export the model again",
        )
    if offset + size > status.st_size:
        raise ConversionError(
            f"{what} end beyond '{shown(location)}': {size} bytes from {offset}, but it has {status.st_size}",
            hint="the data file is truncated, or another model's; copy it again",
        )
    return file, offset, size


def _too_large(size: int) -> ConversionError:
    return ConversionError(
        f"the model has {size / 2**30:.1f} GB; models up to 2 GB are taken", hint="choose a smaller network"
    )


def _no_model(data: bytes, path: Path) -> ConversionError:
    if not data:
        return ConversionError(f"{path} is empty", hint="export or download it again")
    return ConversionError(
        f"{path} is not an ONNX model, or is truncated", hint="export or download it again; check its size"
    )
