"""Networks that textbooks and lectures count by hand, to the unit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import nn

from edgecnn.cost import Costs, LayerCost
from edgecnn.cost.convention import CONVENTIONS
from edgecnn.spec import ModelSpec

Count = Callable[[nn.Module, tuple[int, int, int, int]], Costs]
OnMeta = Callable[[ModelSpec], nn.Module]


def weighted(costs: Costs) -> list[LayerCost]:
    """The layers that have weights."""
    return [layer for layer in costs.layers if layer.params]


@pytest.mark.parametrize(
    ("filters", "kernel", "params"),
    [(1, 3, 28), (16, 3, 448), (10, 5, 760)],
    ids=["one", "sixteen", "ten 5x5"],
)
def test_filters_on_three_channels(count: Count, filters: int, kernel: int, params: int) -> None:
    [layer] = count(nn.Conv2d(3, filters, kernel, padding=kernel // 2), (1, 3, 32, 32)).layers
    assert layer.params == params
    assert layer.output_shape == (1, filters, 32, 32)
    assert layer.macs == 32 * 32 * (params - filters)


def test_a_small_net_on_32x32(count: Count) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16 * 16, 512),
        nn.ReLU(),
        nn.Linear(512, 4),
    )
    costs = count(network, (1, 3, 32, 32))
    assert [layer.params for layer in weighted(costs)] == [224, 3_216, 2_097_664, 2_052]
    assert [layer.output_shape for layer in weighted(costs)] == [
        (1, 8, 32, 32),
        (1, 16, 16, 16),
        (1, 512),
        (1, 4),
    ]
    assert costs.params == 2_103_156


def test_lenet5_by_layer(count: Count, on_meta: OnMeta) -> None:
    spec = ModelSpec("lenet5", 1.0, 32, 10, 1)
    costs = count(on_meta(spec), spec.input_shape)
    assert [layer.params for layer in weighted(costs)] == [156, 2_416, 48_120, 10_164, 850]
    lecture = CONVENTIONS["lecture"]
    flops = [figure for layer in costs.layers if (figure := lecture.count(layer))]
    assert flops == [117_600, 4_704, 240_000, 1_600, 48_000, 10_080, 840]
    assert lecture.total(costs) == 422_824


@pytest.fixture(scope="module")
def alexnet(count: Count, on_meta: OnMeta) -> Costs:
    spec = ModelSpec("alexnet_2012", 1.0, 227, 1000, 3)
    return count(on_meta(spec), spec.input_shape)


def test_alexnet_by_layer(alexnet: Costs) -> None:
    layers = weighted(alexnet)
    assert [layer.params for layer in layers] == [
        34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000,
    ]  # fmt: skip
    assert [layer.macs for layer in layers] == [
        105_415_200, 447_897_600, 149_520_384, 224_280_576, 149_520_384, 37_748_736, 16_777_216, 4_096_000,
    ]  # fmt: skip
    assert alexnet.params == 62_378_344


def test_alexnet_normalises_and_pools_between(alexnet: Costs) -> None:
    others = [(layer.op_type, layer.output_shape[1:]) for layer in alexnet.layers if not layer.params]
    assert others == [
        ("LRN", (96, 55, 55)),
        ("MaxPool", (96, 27, 27)),
        ("LRN", (256, 27, 27)),
        ("MaxPool", (256, 13, 13)),
        ("MaxPool", (256, 6, 6)),
        ("Flatten", (9216,)),
    ]


@pytest.fixture(scope="module")
def vgg16(count: Count, on_meta: OnMeta) -> Costs:
    spec = ModelSpec("vgg16", 1.0, 224, 1000, 3)
    return count(on_meta(spec), spec.input_shape)


def test_vgg16_by_layer(vgg16: Costs) -> None:
    params = [layer.params for layer in weighted(vgg16)]
    assert params[:4] == [1_792, 36_928, 73_856, 147_584]
    assert params[-3:] == [102_764_544, 16_781_312, 4_097_000]
    assert vgg16.params == 138_357_544


def test_vgg16_where_slides_print_less_arithmetic(vgg16: Costs) -> None:
    """Some print 13.6 GFLOPs, one a MAC: one of three convolutions at 56x56x256 is missing."""
    assert vgg16.macs == 15_470_264_320
    deep = [layer for layer in weighted(vgg16) if layer.output_shape == (1, 256, 56, 56)]
    assert len(deep) == 3
    assert round((vgg16.macs - deep[-1].macs) / 1e9, 1) == 13.6


def test_vgg16_where_slides_print_other_activations(vgg16: Costs) -> None:
    """CS231n's notes list every map and print 24 M values, 93 MB; the list adds up to 15.2 M, 61 MB.

    Others print 48.6 MB of outputs without those of pooling: again one 56x56x256 convolution too few.
    """
    listed_bytes = 4 * 3 * 224 * 224 + vgg16.written.fp32
    assert listed_bytes == 4 * 15_237_608 == 60_950_432
    computed_bytes = sum(layer.written.fp32 for layer in weighted(vgg16))
    assert round(computed_bytes / 2**20, 1) == 51.7
    assert round((computed_bytes - 4 * 256 * 56 * 56) / 2**20, 2) == 48.65


def test_vgg16_keeps_two_maps_at_a_time(vgg16: Costs) -> None:
    assert vgg16.peak_layer.name == "features.2/Conv"
    assert vgg16.peak_layer.live.fp32 == 2 * 4 * 64 * 224 * 224
    assert vgg16.peak_layer.live.int8 == 2 * 64 * 224 * 224


def test_a_bottleneck_in_front_of_a_3x3(count: Count) -> None:
    [direct] = count(nn.Conv2d(192, 128, 3, padding=1), (1, 192, 28, 28)).layers
    assert (direct.macs, direct.params) == (173_408_256, 221_312)
    reduced = count(nn.Sequential(nn.Conv2d(192, 96, 1), nn.Conv2d(96, 128, 3, padding=1)), (1, 192, 28, 28))
    assert [layer.macs for layer in reduced.layers] == [14_450_688, 86_704_128]
    assert [layer.params for layer in reduced.layers] == [18_528, 110_720]


def test_a_3x3_as_1x3_and_3x1(count: Count) -> None:
    """128 filters each; without padding the map shrinks to 28x26, then to 26x26."""
    factored = count(
        nn.Sequential(nn.Conv2d(192, 128, (1, 3)), nn.Conv2d(128, 128, (3, 1))), (1, 192, 28, 28)
    )
    assert [layer.output_shape[2:] for layer in factored.layers] == [(28, 26), (26, 26)]
    assert [layer.macs for layer in factored.layers] == [53_673_984, 33_226_752]
    field = factored.layers[-1].receptive
    assert field is not None
    assert (field.height.size_px, field.width.size_px) == (3, 3)
    assert [layer.kernel for layer in factored.layers] == [(1, 3), (3, 1)]


class Inception(nn.Module):
    """128 1x1, 192 3x3, 96 5x5 filters, and pooling, on 256 channels that 1x1 filters may ``reduce``."""

    def __init__(self, reduce: int | None) -> None:
        super().__init__()
        inputs = 256 if reduce is None else reduce

        def reduced(*layers: nn.Module) -> nn.Module:
            return nn.Sequential(*(() if reduce is None else (nn.Conv2d(256, reduce, 1),)), *layers)

        self.one = nn.Conv2d(256, 128, 1)
        self.three = reduced(nn.Conv2d(inputs, 192, 3, padding=1))
        self.five = reduced(nn.Conv2d(inputs, 96, 5, padding=2))
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool = pool if reduce is None else nn.Sequential(pool, nn.Conv2d(256, reduce, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def test_an_inception_module(count: Count) -> None:
    """854 M and 271 M; slides that print 358 M for the latter count its 3x3 twice."""
    naive, reduced = (count(Inception(reduce), (1, 256, 28, 28)) for reduce in (None, 64))
    assert naive.macs == 854_196_224
    assert naive.layers[-1].output_shape == (1, 128 + 192 + 96 + 256, 28, 28)
    assert reduced.macs == 271_351_808
    assert reduced.layers[-1].output_shape == (1, 128 + 192 + 96 + 64, 28, 28)
    [three] = [layer for layer in reduced.layers if layer.kernel == (3, 3) and layer.macs]
    assert round((reduced.macs + three.macs) / 1e6) == 358


def test_two_3x3_for_one_5x5(count: Count) -> None:
    channels = 16
    one = count(nn.Conv2d(channels, channels, 5, padding=2, bias=False), (1, channels, 20, 20))
    two = count(
        nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))),
        (1, channels, 20, 20),
    )
    assert Fraction(one.macs, two.macs) == Fraction(25, 18)
    for costs in (one, two):
        assert costs.receptive is not None
        assert costs.receptive.height.size_px == costs.receptive.width.size_px == 5


def test_receptive_fields_of_two_strided_3x3(count: Count) -> None:
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1) for _ in range(2)))
    first, second = count(layers, (1, 1, 5, 5)).layers
    assert (first.output_shape[2:], second.output_shape[2:]) == ((3, 3), (2, 2))
    assert first.receptive is not None
    assert second.receptive is not None
    assert (first.receptive.height.size_px, second.receptive.height.size_px) == (3, 7)
    assert (first.receptive.width.stride_px, second.receptive.width.stride_px) == (2, 4)
    assert first.receptive.height.first_centre_px == second.receptive.height.first_centre_px == 0.5


def test_depthwise_separable(count: Count) -> None:
    dense = count(nn.Conv2d(3, 256, 5), (1, 3, 12, 12))
    separable = count(nn.Sequential(nn.Conv2d(3, 3, 5, groups=3), nn.Conv2d(3, 256, 1)), (1, 3, 12, 12))
    assert dense.layers[0].output_shape == separable.layers[1].output_shape == (1, 256, 8, 8)
    assert (dense.macs, dense.params) == (1_228_800, 19_456)
    assert [layer.macs for layer in separable.layers] == [4_800, 49_152]
    assert [layer.params for layer in separable.layers] == [78, 1_024]
    assert [layer.groups for layer in separable.layers] == [3, 1]
    assert Fraction(separable.macs, dense.macs) == Fraction(1, 256) + Fraction(1, 25)
