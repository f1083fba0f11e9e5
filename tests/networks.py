"""Networks from ONNX's text form, whose inputs but the first become constants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir.serde
from onnx import ModelProto, numpy_helper
from onnx.parser import parse_model

from edgecnn.graph.graph import Graph
from edgecnn.graph.rewrite import canonicalize

Fill = Callable[[str, list[int], np.random.Generator], np.ndarray]
"""Values of a constant from its name, its shape and a source of chance."""


def plain(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Normal, with deviation 1."""
    return rng.normal(size=shape)


def scaled(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Normal, so that a layer's output is about as large as its input."""
    return rng.normal(size=shape) / math.sqrt(max(math.prod(shape[1:]), 1))


def filled(text: str | ModelProto, fill: Fill = scaled, seed: int = 0) -> ModelProto:
    """The network with values for all inputs but the first."""
    model = parse_model(text) if isinstance(text, str) else text
    rng = np.random.default_rng(seed)
    for value in list(model.graph.input)[1:]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = np.asarray(fill(value.name, shape, rng))
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), value.name))
        model.graph.input.remove(value)
    return model


def as_graph(model: ModelProto) -> Graph:
    """The model as it is, in fp32."""
    return Graph(onnx_ir.serde.deserialize_model(model), "fp32")


def canonical(text: str | ModelProto, fill: Fill = scaled, seed: int = 0) -> Graph:
    """The network with values for all inputs but the first, in canonical form."""
    return canonicalize(as_graph(filled(text, fill, seed)))
