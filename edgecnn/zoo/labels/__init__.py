"""Class names of the published weights: a text file for each data set, a line for each output, in order."""

from __future__ import annotations

from importlib.resources import files

from edgecnn.errors import ConfigError
from edgecnn.target import did_you_mean


def read_labels(name: str) -> tuple[str, ...]:
    """The class names of a shipped label set, such as ``imagenet``; entry ``i`` names output ``i``.

    Raises:
        ConfigError: no such label set.
    """
    texts = [item for item in files(__package__).iterdir() if item.name.endswith(".txt")]
    known = {item.name.removesuffix(".txt"): item for item in texts}
    if name not in known:
        raise ConfigError(f"unknown label set '{name}'", hint=did_you_mean(name, sorted(known)))
    return tuple(known[name].read_text(encoding="utf-8").splitlines())
