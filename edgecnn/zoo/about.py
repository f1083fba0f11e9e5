"""What a checkpoint of ``edgecnn train`` says of itself: JSON in the header of its .safetensors file."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

KEY = "edgecnn"
"""The entry of the header's metadata."""
_LONGEST = 100_000_000  # the format's own limit


def about(path: Path) -> dict[str, Any]:
    """The description in a .safetensors file, empty where there is none or the file cannot be read.

    Only the header is read, no tensor, and no framework is needed.
    """
    with suppress(OSError, ValueError), path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length <= _LONGEST:
            header = json.loads(stream.read(length))
            described = json.loads(header.get("__metadata__", {}).get(KEY, "{}"))
            return described if isinstance(described, dict) else {}
    return {}
