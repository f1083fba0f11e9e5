"""TFLite (LiteRT): the file is written straight from the canonical graph, float or QDQ."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgecnn.backends.tflite.flatbuffer import serialize
from edgecnn.backends.tflite.lower import lower
from edgecnn.backends.tflite.lower.context import NHWC_TO_NCHW
from edgecnn.backends.tflite.verify import verify
from edgecnn.errors import ConversionError, one_line
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner
from edgecnn.target import Target

LAYOUT = "NHWC"
PACKAGES = ("ai-edge-litert",)


def compile(graph: Graph, target: Target, folder: Path) -> list[Path]:
    """Write ``model.tflite``.

    Raises:
        ConversionError: the graph holds something that TFLite cannot express.
    """
    model = lower(graph)
    verify(model)
    path = folder / "model.tflite"
    path.write_bytes(serialize(model, str(graph.model.graph.name)))
    return [path]


def load(model: Path, target: Target, taps: Sequence[str] | None = None) -> Runner:
    """A function from one input (NCHW, float32) to the output, or to those of ``taps`` that the file has."""
    with _quiet():
        if taps is None:
            interpreter = Interpreter(model_path=str(model), num_threads=1)
        else:
            # XNNPACK keeps the tensors between the operators that it takes to itself.
            interpreter = Interpreter(
                model_path=str(model),
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        try:
            interpreter.allocate_tensors()
        except RuntimeError as error:
            raise ConversionError(f"TFLite cannot load {model.name}: {one_line(error)}") from error
    source = interpreter.get_input_details()[0]
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    if taps is None:
        wanted = interpreter.get_output_details()
    else:
        wanted = [details.get(f"{name}:int8") or details.get(name) for name in taps]

    def run(x: np.ndarray) -> list[np.ndarray]:
        nhwc = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        interpreter.set_tensor(source["index"], np.ascontiguousarray(nhwc))
        interpreter.invoke()
        return [_read(interpreter, detail) for detail in wanted]

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library announces its delegate on standard error, below Python; its errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read(interpreter: Interpreter, detail: dict[str, Any] | None) -> np.ndarray:
    """One tensor as float32 in NCHW; NaN where the file does not have it."""
    if detail is None:
        return np.asarray(np.nan, np.float32)
    values = np.asarray(interpreter.get_tensor(detail["index"]))
    if values.dtype == np.int8:
        scale, zero_point = detail["quantization"]
        values = ((values.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)
    return values.transpose(NHWC_TO_NCHW) if values.ndim == 4 else values
