"""Input preparations by name, for networks that do not say how they were trained."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgecnn.errors import ConfigError
from edgecnn.spec import Preprocess
from edgecnn.target import did_you_mean

# Ratio of resize to crop in the ImageNet evaluations of most papers: 256 to 224.
_RESIZE, _CROP = 256, (224, 224)

RECIPES = {
    "imagenet": Preprocess(_RESIZE, _CROP, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "signed": Preprocess(_RESIZE, _CROP, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": Preprocess(_RESIZE, _CROP, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw": Preprocess(_RESIZE, _CROP, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""``imagenet``: the mean and deviation of ImageNet, as torchvision does; ``signed``: -1 to 1; ``unit``: 0 to
1; ``raw``: 0 to 255."""

_FIELDS = [field.name for field in fields(Preprocess)]


def read_recipe(name: str) -> Preprocess:
    """A preparation by its name, or from a ``preprocess.json`` such as every bundle has.

    Raises:
        ConfigError: neither a name nor such a file.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".json" and not path.exists():
        hint = f"{did_you_mean(name, list(RECIPES))}, or pass a preprocess.json"
        raise ConfigError(f"unknown preprocessing '{name}'", hint=hint)
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    try:
        return Preprocess.from_json(value)
    except ValueError as error:
        raise ConfigError(
            f"{path} is no preprocessing",
            hint=f"it has the keys {', '.join(_FIELDS)}, as the preprocess.json of a bundle",
        ) from error
