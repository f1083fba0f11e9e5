"""NASNet-A against the paper's figures; its cells, whose tables were found by search and read like noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecnn.spec import ModelSpec
from edgecnn.zoo.families.nasnet import FactorizedReduction, NormalCell, ReductionCell, build


def make(width: float = 1.0, resolution: int = 32, classes: int = 1000, in_channels: int = 3) -> nn.Module:
    return build(ModelSpec("nasnet_mobile", width, resolution, classes, in_channels)).eval()


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = make()
    params = sum(parameter.numel() for parameter in model.parameters())
    norms = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    # Table 3: 5.3 million; what Keras calls trainable.
    assert params == 5_289_978
    # keras.io/api/applications, with the mean and variance of each batch norm channel.
    assert params + 2 * norms == 5_326_716


def test_stages_have_the_sizes_of_a_224_pixel_image() -> None:
    shapes = []
    with torch.device("meta"):
        model = make()
        for cell in model.get_submodule("cells"):
            cell.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape[1:])))
        model(torch.empty(1, 3, 224, 224))
    assert shapes == [
        (44, 56, 56),
        (88, 28, 28),
        *[(264, 28, 28)] * 4,
        (352, 14, 14),
        *[(528, 14, 14)] * 4,
        (704, 7, 7),
        *[(1056, 7, 7)] * 4,
    ]


def test_state_dict_begins_and_ends() -> None:
    with torch.device("meta"):
        names = list(make().state_dict())
    assert len(names) == 1338
    assert (names[0], names[-1]) == ("stem.0.weight", "classifier.bias")


@pytest.mark.parametrize("size", [6, 7])
def test_factorized_reduction_reads_even_pixels_and_odd_ones(size: int) -> None:
    reduction = FactorizedReduction(1, 2).eval()
    for half in (reduction.even, reduction.odd):
        nn.init.ones_(half[0].weight)
        half[1] = nn.Identity()
    x = torch.arange(1.0, 1 + size * size).reshape(1, 1, size, size)
    with torch.no_grad():
        even, odd = reduction(x)[0]
    half = (size + 1) // 2
    expected = torch.zeros(half, half)
    expected[: size // 2, : size // 2] = x[0, 0, 1::2, 1::2]
    assert torch.equal(even, x[0, 0, ::2, ::2])
    assert torch.equal(odd, expected)


class Named(nn.Module):
    """Stands for an operation: multiplies by a number of its own, and halves the map where it strides."""

    def __init__(self, factor: float, stride: int = 1) -> None:
        super().__init__()
        self.factor, self.stride = factor, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x[:, :, :: self.stride, :: self.stride]


def test_normal_cell_is_that_of_figure_4() -> None:
    cell = NormalCell(1, 1, Named(1))
    cell.squeeze = Named(1)
    operations = {"current5": 2, "previous3": 3, "previous5": 5, "previous3_again": 7, "current3": 11}
    for name, factor in operations.items():
        setattr(cell, name, Named(factor))
    h, p = 100.0, 1.0
    cell_output = cell(torch.full((1, 1, 4, 4), h), torch.full((1, 1, 4, 4), p))
    # The averages of a constant map are its value, at the border too: padding is not counted.
    expected = [p, 2 * h + 3 * p, 5 * p + 7 * p, h + p, p + p, 11 * h + h]
    assert torch.equal(cell_output, torch.tensor(expected).reshape(1, 6, 1, 1).expand(1, 6, 4, 4))


def test_reduction_cell_is_that_of_figure_4() -> None:
    cell = ReductionCell(1, 1, 1, Named(1))
    cell.squeeze = Named(1)
    for name, factor in {"current5": 2, "previous7": 3, "previous7_again": 5, "previous5": 7}.items():
        setattr(cell, name, Named(factor, stride=2))
    cell.sum3 = Named(11)
    h, p = 100.0, 1.0
    cell_output = cell(torch.full((1, 1, 4, 4), h), torch.full((1, 1, 4, 4), p))
    first, second = 2 * h + 3 * p, h + 5 * p
    expected = [second, h + 7 * p, first + second, 11 * first + h]
    assert torch.equal(cell_output, torch.tensor(expected).reshape(1, 4, 1, 1).expand(1, 4, 2, 2))


@pytest.mark.parametrize("width", [0.05, 0.25, 2.0])
def test_grey_network_with_few_classes_runs_at_every_width(width: float) -> None:
    with torch.no_grad():
        logits = make(width, classes=7, in_channels=1)(torch.randn(2, 1, 35, 35))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
