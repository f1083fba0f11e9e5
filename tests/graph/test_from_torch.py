"""Every family of the zoo from torch to the canonical graph."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from edgecnn import check
from edgecnn.backends.tflite.lower import LOWERINGS
from edgecnn.errors import ConversionError
from edgecnn.graph.from_torch import eager_output, export, layer_outputs
from edgecnn.graph.reference import load_reference
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
    graph = export(module, "net", spec.input_shape)
    used = {node.op_type for node in graph.model.graph}
    assert used <= set(LOWERINGS)
    assert used <= QUANTIZABLE
    rng = np.random.default_rng(0)
    images = [rng.normal(size=spec.input_shape).astype(np.float32) for _ in range(3)]
    held = check.float_graph(
        graph,
        partial(eager_output, module),
        "eager torch",
        images,
        lambda x: layer_outputs(module, x),
    )
    assert held.value <= check.TORCH_LIMIT


def test_exporting_twice_gives_the_same_bytes() -> None:
    spec = small("mobilenet_v2")
    first, again = (export(build(spec), "net", spec.input_shape) for _ in range(2))
    assert first.digest == again.digest


class Unexportable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).abs()


def test_what_torch_cannot_export_is_refused_in_one_line() -> None:
    with pytest.raises(ConversionError, match=r"torch cannot export odd: .") as caught:
        export(Unexportable(), "odd", (1, 1, 8, 8))
    assert "\n" not in str(caught.value)


def test_local_response_normalisation_is_exported_as_one_operator() -> None:
    # Strong enough an input for the sum of squares to matter.
    module = nn.Sequential(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)).eval()
    x = 100 * torch.randn(1, 9, 3, 3, generator=torch.Generator().manual_seed(0))
    before = nn.LocalResponseNorm.forward
    graph = export(module, "net", (1, 9, 3, 3))
    assert nn.LocalResponseNorm.forward is before
    assert [node.op_type for node in graph.model.graph] == ["LRN"]
    [got] = load_reference(graph)(x.numpy())
    np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-5)
