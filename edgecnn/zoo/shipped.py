"""Weights that travel with the package, ``trained/<variant>-<set>.safetensors``, from ``edgecnn train``."""

from __future__ import annotations

from pathlib import Path

from edgecnn.spec import ModelSpec
from edgecnn.zoo.registry import variant

_FOLDER = Path(__file__).parent / "trained"


def shipped_weights(spec: ModelSpec) -> dict[str, Path]:
    """The shipped checkpoints of exactly this network, by the name of the set they were trained on."""
    beginning = f"{variant(spec)}-"
    return {
        path.stem.removeprefix(beginning): path for path in sorted(_FOLDER.glob(f"{beginning}*.safetensors"))
    }


def shipped_for(name: str) -> dict[str, tuple[str, ...]]:
    """Of an architecture, by the name of the set: the widths, as file names have them, that are shipped."""
    found: dict[str, list[str]] = {}
    for path in sorted(_FOLDER.glob(f"{name}-*.safetensors")):
        width, _, trained_on = path.stem.removeprefix(f"{name}-").split("-", 2)
        found.setdefault(trained_on, []).append(width)
    return {trained_on: tuple(widths) for trained_on, widths in found.items()}
