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
