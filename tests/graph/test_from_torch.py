"""Every family of the zoo from torch to the canonical graph."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from edgecnn import check
from edgecnn.backends.tflite.lower import LOWERINGS
from edgecnn.errors import ConversionError
from edgecnn.graph.cost import layer_costs
from edgecnn.graph.from_torch import eager_output, export, layer_outputs
from edgecnn.quantize.groups import QUANTIZABLE
from edgecnn.spec import ModelSpec
from edgecnn.zoo import build, list_models, make_spec

FAMILIES = sorted({entry.family: entry.name for entry in reversed(list_models())}.values())


def small(name: str) -> ModelSpec:
    entry = next(entry for entry in list_models() if entry.name == name)
    return make_spec(name, width=0.25, resolution=entry.min_resolution)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_exports_to_what_every_stage_knows(name: str) -> None:
    spec = small(name)
    module = build(spec)
    graph = export(module, spec)
    used = {node.op_type for node in graph.model.graph}
    assert used <= set(LOWERINGS)
    assert used <= QUANTIZABLE
    rng = np.random.default_rng(0)
    images = [rng.normal(size=spec.input_shape).astype(np.float32) for _ in range(3)]
    held = check.float_graph(
        graph,
        partial(eager_output, module),
        images,
        lambda x: layer_outputs(module, x),
    )
    assert held.value <= check.TORCH_LIMIT


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_costs_what_the_registry_says(name: str) -> None:
    entry = next(entry for entry in list_models() if entry.name == name)
    spec = make_spec(name)
    assert sum(cost.macs for cost in layer_costs(export(build(spec), spec))) == entry.macs


def test_exporting_twice_gives_the_same_bytes() -> None:
    spec = small("mobilenet_v2")
    assert export(build(spec), spec).digest == export(build(spec), spec).digest


class Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).abs()


def test_what_torch_cannot_export_is_refused_in_one_line() -> None:
    with pytest.raises(ConversionError, match=r"torch cannot export odd-1\.0-8: .") as caught:
        export(Unexportable(), ModelSpec("odd", 1.0, 8, 10, 1))
    assert "\n" not in str(caught.value)
