"""Receptive fields against where gradients arrive, and by hand where those cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from edgecnn.cost import Costs, Extent

CountText = Callable[..., Costs]
Count = Callable[[nn.Module, tuple[int, int, int, int]], Costs]


class Residual(nn.Module):
    """A stride in both branches, a 1x1 against a 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 1))
        self.short = nn.Conv2d(1, 1, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self.long(x) + self.short(x)
        return sums


class Branches(nn.Module):
    """Side by side: a dilated convolution and one that is longer than high."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(1, 1, 3, padding=2, dilation=2)
        self.flat = nn.Conv2d(1, 1, (1, 7), padding=(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.dilated(x), self.flat(x)], 1)


class SpaceToDepth(nn.Module):
    """Four slices, each two apart and starting elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


class Shuffle(nn.Module):
    """Channels 0 1 2 3 become 0 2 1 3."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, _, height, width = x.shape
        return x.view(1, 2, 2, height, width).transpose(1, 2).reshape(1, 4, height, width)


NETWORKS = {
    "one convolution": nn.Conv2d(1, 1, 5, stride=3, padding=1),
    "even windows": nn.Sequential(nn.Conv2d(1, 1, 4, 2, 1), nn.AvgPool2d(2)),
    "high and wide": nn.Sequential(nn.Conv2d(1, 1, (5, 3), (2, 1), (0, 1)), nn.Conv2d(1, 1, (1, 3))),
    "dilation": nn.Sequential(nn.Conv2d(1, 1, 3, 1, 1), nn.Conv2d(1, 1, 3, padding=4, dilation=4)),
    "pooling": nn.Sequential(nn.Conv2d(1, 1, 3, 2), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 3)),
    "padding at one end": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(1, 1, 3, 2)),
    "residual": nn.Sequential(Residual(), Residual()),
    "branches": nn.Sequential(Branches(), nn.Conv2d(2, 1, 3)),
    "space to depth": nn.Sequential(SpaceToDepth(), nn.Conv2d(4, 1, 3)),
    "channel shuffle": nn.Sequential(nn.Conv2d(1, 4, 3, 2), Shuffle(), nn.Conv2d(4, 1, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_arrives_exactly_inside_the_field(count: Count, name: str) -> None:
    """Weights of 1 let no gradient cancel; the output looked at is far from every border."""
    network = NETWORKS[name].double()
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, 64, 76, dtype=torch.float64, requires_grad=True)
    output = network(x)
    place = (output.shape[2] // 2, output.shape[3] // 2)
    output[0, :, place[0], place[1]].sum().backward()
    assert x.grad is not None
    reached = x.grad[0, 0].nonzero()
    field = count(network.float(), (1, 1, 64, 76)).receptive
    assert field is not None
    for axis, extent in enumerate((field.height, field.width)):
        begin, end = int(reached[:, axis].min()), int(reached[:, axis].max()) + 1
        centre = extent.first_centre_px + place[axis] * extent.stride_px
        assert (centre - extent.size_px / 2, centre + extent.size_px / 2) == (begin, end)
        assert not extent.everything


MAP = "float[1,2,8,12] x"
WHOLE = (Extent(8, 8, 4.0, everything=True), Extent(12, 12, 6.0, everything=True))

EVERYTHING = {
    "global pooling": "y = GlobalAveragePool(x)",
    "a window of the whole map": "y = AveragePool<kernel_shape=[8,12]>(x)",
    "a gate": "p = GlobalAveragePool(x) g = Sigmoid(p) y = Mul(x, g)",
    "a dense layer": "p = Flatten(x) y = Gemm<transB=1>(p, w)",
    "and all after it": "p = GlobalAveragePool(x) f = Flatten(p) y = Sin(f)",
}


@pytest.mark.parametrize("body", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_some_operators_see_everything(count_text: CountText, body: str) -> None:
    field = count_text(f"{MAP}, float[5,192] w", body, canonical=False).receptive
    assert field is not None
    assert (field.height, field.width) == WHOLE


def test_a_window_as_high_as_the_map_sees_all_of_one_axis(count_text: CountText) -> None:
    field = count_text(MAP, "y = MaxPool<kernel_shape=[8,3]>(x)").receptive
    assert field is not None
    assert (field.height, field.width) == (WHOLE[0], Extent(3, 1, 1.5))


@pytest.mark.parametrize(("axes", "seen"), [("1", (3, 3)), ("2", (8, 3)), ("2, 3", (8, 12))])
def test_means_see_all_of_their_axes(count_text: CountText, axes: str, seen: tuple[int, int]) -> None:
    body = f"p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x) y = ReduceMean<axes=[{axes}]>(p)"
    field = count_text(MAP, body, canonical=False).receptive
    assert field is not None
    assert (field.height.size_px, field.width.size_px) == seen


UNKNOWN = {
    "an operator": "y = Sin(x)",
    "a map in another shape": "s = Constant<value_ints=[1,8,8,3]>() r = Reshape(x, s) "
    "y = MaxPool<kernel_shape=[2,2]>(r)",
    "maps one above the other": "y = Concat<axis=2>(x, x)",
    "branches with other strides": "a = MaxPool<kernel_shape=[1,1], strides=[4,4]>(x) "
    "b = MaxPool<kernel_shape=[5,5], strides=[3,3]>(x) y = Add(a, b)",
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_cannot_be_told_is_not_guessed(count_text: CountText, body: str) -> None:
    assert count_text(MAP, body, canonical=False).receptive is None


@pytest.mark.parametrize(("placed", "centre"), [("SAME_UPPER", 1.0), ("SAME_LOWER", 0.0)])
def test_automatic_padding(count_text: CountText, placed: str, centre: float) -> None:
    """A 2x2 window on an even map lacks one row: at the end, or in front."""
    body = f'y = MaxPool<kernel_shape=[2,2], auto_pad="{placed}">(x)'
    field = count_text(MAP, body, canonical=False).receptive
    assert field is not None
    assert field.height == field.width == Extent(2, 1, centre)


def test_vectors_have_no_field(count_text: CountText) -> None:
    assert count_text("float[1,4] x", "y = Relu(x)").receptive is None
