"""Files inside Qt resource files (.rcc), in which Debian's gcompris-qt-data keeps its photographs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from edgecnn.errors import DataError

_FOLDER = 2
_COMPRESSED = 1 | 4
# Bytes of a node of the tree, by the format's version: from 2 on a node ends in a time stamp.
_NODE_BYTES = {1: 14, 2: 22, 3: 22}


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file that is stored uncompressed, as photographs are.

    The format is that of Qt's resource compiler: a header, a tree of nodes of fixed size, names in UTF-16 and
    data with their lengths, all big-endian. Nothing is written, and the paths are only told.

    Raises:
        DataError: it is no such file, or damaged.
    """
    content = path.read_bytes()
    try:
        if content[:4] != b"qres":
            raise DataError(f"{path} is no Qt resource file")
        version, tree, data, names = struct.unpack_from(">4I", content, 4)
        yield from _below(content, tree, data, names, _NODE_BYTES[version], 0, "")
    except (struct.error, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"Qt resource file {path} is damaged: {error!r}") from error


def _below(
    content: bytes, tree: int, data: int, names: int, node_bytes: int, node: int, path: str
) -> Iterator[tuple[str, bytes]]:
    name_at, flags = struct.unpack_from(">IH", content, tree + node * node_bytes)
    if node:
        (length,) = struct.unpack_from(">H", content, names + name_at)
        start = names + name_at + 6  # behind the length and a hash of the name
        path = f"{path}/{content[start : start + 2 * length].decode('utf-16-be')}"
    if flags & _FOLDER:
        count, first = struct.unpack_from(">II", content, tree + node * node_bytes + 6)
        for child in range(first, first + count):
            yield from _below(content, tree, data, names, node_bytes, child, path)
    elif not flags & _COMPRESSED:
        (offset,) = struct.unpack_from(">I", content, tree + node * node_bytes + 10)
        (length,) = struct.unpack_from(">I", content, data + offset)
        yield path, content[data + offset + 4 : data + offset + 4 + length]
