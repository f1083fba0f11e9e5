"""Back ends, one file or folder a runtime, found by the name a target gives in ``runtime``.

Each has

- ``compile(graph, target, folder) -> list[Path]``: write the model file or files, the entry file first;
- ``load(model, target, taps=None) -> Runner``: a function from one input (NCHW, float32) to the network's
  output, or to the named tensors (NCHW, float32, dequantised) that the compiled model still has, with a NaN
  of rank 0 for those it has not;
- ``LAYOUT``: ``NCHW`` or ``NHWC``, the layout in which the compiled model takes its input;
- ``PACKAGES``: the distributions whose versions decide what the file holds.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from edgecnn.errors import ConfigError, MissingDependency
from edgecnn.target import did_you_mean

RUNTIMES = ("onnxruntime", "openvino", "tflite")


def backend(runtime: str) -> ModuleType:
    """The module that compiles for a runtime.

    Raises:
        ConfigError: no such back end.
        MissingDependency: the runtime's package is not installed; the hint names the extra.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"unknown runtime '{runtime}'", hint=did_you_mean(runtime, list(RUNTIMES)))
    try:
        return importlib.import_module(f"edgecnn.backends.{runtime}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edgecnn"):
            raise
        extra = f"'edgecnn[{runtime}]'" if runtime == "openvino" else "edgecnn"
        raise MissingDependency(
            f"the {runtime} runtime needs the package '{error.name}', which is not installed",
            hint=f"pip install {extra}",
        ) from error
