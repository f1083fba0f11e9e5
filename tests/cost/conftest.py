"""Small networks to count: torch modules, and ONNX graphs as text."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import numpy as np
import onnx_ir.serde
import pytest
import torch
from onnx.parser import parse_model

from edgecnn.cost import Costs, analyze
from edgecnn.graph.from_torch import export
from edgecnn.graph.rewrite import canonicalize
from edgecnn.spec import ModelSpec
from edgecnn.zoo import resolve
from tests.networks import as_graph, filled

Shape = tuple[int, int, int, int]


@pytest.fixture(scope="session")
def on_meta() -> Callable[[ModelSpec], torch.nn.Module]:
    """A network of the zoo whose weights, which nothing here looks at, are never made."""

    def on_meta(spec: ModelSpec) -> torch.nn.Module:
        family = importlib.import_module(f"edgecnn.zoo.families.{resolve(spec.name).family}")
        with torch.device("meta"):
            module: torch.nn.Module = family.build(spec)
        return module.eval()

    return on_meta


@pytest.fixture(scope="session")
def count() -> Callable[[torch.nn.Module, Shape], Costs]:
    """The cost of a module for an input of shape NCHW; its weights may be on the meta device."""

    def count(module: torch.nn.Module, shape: Shape) -> Costs:
        if any(parameter.is_meta for parameter in module.parameters()):
            module = module.to_empty(device="cpu")
            for tensor in (*module.parameters(), *module.buffers()):
                torch.nn.init.zeros_(tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return analyze(export(module, "network", shape))

    return count


@pytest.fixture(scope="session")
def count_text() -> Callable[..., Costs]:
    """The cost of an ONNX graph as text: ``x`` is its input, all others become weights of 0.5.

    ``canonical=False`` leaves it as it is written, for operators that the rewrites turn into others.
    """

    def count_text(inputs: str, body: str, *, canonical: bool = True) -> Costs:
        text = f'<ir_version: 8, opset_import: ["" : 17]> network ({inputs}) => (float y) {{ {body} }}'
        model = parse_model(text)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        graph = as_graph(filled(model, lambda name, shape, rng: np.full(shape, 0.5)))
        if canonical:
            return analyze(canonicalize(graph))
        onnx_ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(
            graph.model
        )
        onnx_ir.passes.common.ShapeInferencePass()(graph.model)
        return analyze(graph)

    return count_text
