"""From a convolutional network to a compiled, checked and measured artifact for each edge target.

What the command line does, as functions::

    import edgecnn

    [artifact] = edgecnn.export("mobilenet", ["tflite"], precision="int8")
    print(edgecnn.bench(artifact.path).p50_ms)

Importing the package loads no framework; a function's first use does.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from edgecnn.versions import version_of

if TYPE_CHECKING:
    from edgecnn.accuracy.evaluate import evaluate
    from edgecnn.benchmark import bench, compare
    from edgecnn.cost import inspect
    from edgecnn.doctor import diagnose
    from edgecnn.pipeline import export
    from edgecnn.target import list_targets, load_target
    from edgecnn.training.train import train
    from edgecnn.zoo import list_models

__all__ = [
    "bench",
    "compare",
    "diagnose",
    "evaluate",
    "export",
    "inspect",
    "list_models",
    "list_targets",
    "load_target",
    "train",
]

# ONNX Runtime's official builds report their use to their makers from the first import on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "bench": "benchmark",
    "compare": "benchmark",
    "diagnose": "doctor",
    "evaluate": "accuracy.evaluate",
    "export": "pipeline",
    "inspect": "cost",
    "list_models": "zoo",
    "list_targets": "target",
    "load_target": "target",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version_of("edgecnn")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgecnn' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgecnn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
