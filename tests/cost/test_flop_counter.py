"""Our MACs against torch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgecnn.cost import Costs
from edgecnn.spec import ModelSpec
from edgecnn.zoo import Entry, list_models, make_spec

OnMeta = Callable[[ModelSpec], torch.nn.Module]

SMALL = ("lenet5", "mobilenet_v2", "resnet18")


def torch_flops(module: torch.nn.Module, shape: tuple[int, int, int, int]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_torch_counts_twice_our_macs(on_meta: OnMeta, entry: Entry) -> None:
    """Its FLOPs are two a MAC of convolutions and matrix products, and nothing else."""
    spec = make_spec(entry.name)
    assert torch_flops(on_meta(spec), spec.input_shape) == 2 * entry.macs


@pytest.mark.parametrize("entry", [e for e in list_models() if e.name in SMALL], ids=lambda e: e.name)
@pytest.mark.parametrize("width", [0.5, 1.0])
def test_and_so_it_does_of_the_exported_graph(
    count: Callable[..., Costs], on_meta: OnMeta, entry: Entry, width: float
) -> None:
    spec = make_spec(entry.name, width=width, resolution=entry.min_resolution)
    counted = count(on_meta(spec), spec.input_shape)
    assert 2 * counted.macs == torch_flops(on_meta(spec), spec.input_shape)
