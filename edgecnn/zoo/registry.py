"""The architectures as rows, and the four questions asked of them: list, resolve, make a spec, build."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecnn.errors import ConfigError
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.target import did_you_mean

if TYPE_CHECKING:
    from torch import nn

MIN_WIDTH = 0.01
MAX_WIDTH = 4.0
MAX_RESOLUTION = 4096


@dataclass(frozen=True)
class Entry:
    """One architecture of the zoo, at width 1.0 unless a spec says otherwise."""

    name: str
    """Canonical name, the one in specs and file names."""
    aliases: tuple[str, ...]
    """Other names that :func:`resolve` accepts."""
    family: str
    """The module of ``edgecnn.zoo`` whose ``build`` makes it."""
    resolution: int
    """Default height and width of the input, in pixels."""
    min_resolution: int
    """Least height and width the network can take, in pixels."""
    max_resolution: int
    """Greatest height and width accepted, in pixels."""
    resolution_reason: str
    """Why the least resolution is what it is, for the error that refuses a smaller one."""
    classes: int
    """Default number of outputs."""
    in_channels: int
    """Default channels of the input: 3 for RGB, 1 for grey."""
    preprocess: Preprocess
    """Input preparation for weights that bring none of their own, at the default resolution."""
    paper: str
    """Authors, year and where to find the paper."""
    params: int
    """Learned parameters of the default network (batch norm's running statistics are none)."""
    macs: int
    """Multiply-accumulates of the default network's convolutions and dense layers, for one input."""


_IMAGENET = Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_HALF = Preprocess(resize=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_MNIST = Preprocess(resize=32, crop=32, mean=(0.1307,), std=(0.3081,))

_STRIDE_32 = "its five halvings leave less than one pixel of a smaller input"
_DENSE_32 = "its dense layers are fixed to the 5x5 maps that a 32x32 input leaves"

_ENTRIES = (
    Entry(
        name="lenet5",
        aliases=("lenet",),
        family="lenet",
        resolution=32,
        min_resolution=32,
        max_resolution=32,
        resolution_reason=_DENSE_32,
        classes=10,
        in_channels=1,
        preprocess=_MNIST,
        paper="LeCun et al. 1998, doi:10.1109/5.726791",
        params=61_706,
        macs=416_520,
    ),
    Entry(
        name="mobilenet_v1",
        aliases=(),
        family="mobilenet_v1",
        resolution=224,
        min_resolution=32,
        max_resolution=MAX_RESOLUTION,
        resolution_reason=_STRIDE_32,
        classes=1000,
        in_channels=3,
        preprocess=_HALF,
        paper="Howard et al. 2017, arXiv:1704.04861",
        params=4_231_976,
        macs=568_740_352,
    ),
    Entry(
        name="mobilenet_v2",
        aliases=("mobilenet",),
        family="mobilenet_v2",
        resolution=224,
        min_resolution=32,
        max_resolution=MAX_RESOLUTION,
        resolution_reason=_STRIDE_32,
        classes=1000,
        in_channels=3,
        preprocess=_IMAGENET,
        paper="Sandler et al. 2018, arXiv:1801.04381",
        params=3_504_872,
        macs=300_774_272,
    ),
    Entry(
        name="resnet18",
        aliases=(),
        family="resnet",
        resolution=224,
        min_resolution=32,
        max_resolution=MAX_RESOLUTION,
        resolution_reason=_STRIDE_32,
        classes=1000,
        in_channels=3,
        preprocess=_IMAGENET,
        paper="He et al. 2015, arXiv:1512.03385",
        params=11_689_512,
        macs=1_814_073_344,
    ),
    Entry(
        name="resnet34",
        aliases=(),
        family="resnet",
        resolution=224,
        min_resolution=32,
        max_resolution=MAX_RESOLUTION,
        resolution_reason=_STRIDE_32,
        classes=1000,
        in_channels=3,
        preprocess=_IMAGENET,
        paper="He et al. 2015, arXiv:1512.03385",
        params=21_797_672,
        macs=3_663_761_408,
    ),
    Entry(
        name="resnet50",
        aliases=(),
        family="resnet",
        resolution=224,
        min_resolution=32,
        max_resolution=MAX_RESOLUTION,
        resolution_reason=_STRIDE_32,
        classes=1000,
        in_channels=3,
        preprocess=_IMAGENET,
        paper="He et al. 2015, arXiv:1512.03385",
        params=25_557_032,
        macs=4_089_184_256,
    ),
)


def list_models() -> list[Entry]:
    """All architectures, by name."""
    return list(_ENTRIES)


def resolve(name: str) -> Entry:
    """The entry of that name or alias.

    Raises:
        ConfigError: no such model; the hint lists the nearest names.
    """
    by_name = {known: entry for entry in _ENTRIES for known in (entry.name, *entry.aliases)}
    if name not in by_name:
        raise ConfigError(f"unknown model '{name}'", hint=did_you_mean(name.lower(), list(by_name)))
    return by_name[name]


def make_spec(name: str, width: float | None = None, resolution: int | None = None) -> ModelSpec:
    """A variant of the named model; what is left out is the architecture's default.

    Args:
        name: canonical name or alias.
        width: multiplier on the channel counts, from 0.01 to 4.
        resolution: height and width of the input, in pixels.

    Raises:
        ConfigError: an unknown model, or a width or resolution that it cannot have.
    """
    entry = resolve(name)
    spec = ModelSpec(
        name=entry.name,
        width=1.0 if width is None else float(width),
        resolution=entry.resolution if resolution is None else resolution,
        classes=entry.classes,
        in_channels=entry.in_channels,
    )
    _check(spec, entry)
    return spec


def build(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """The network of a spec, in eval mode, with random weights.

    The same seed gives the same weights, and torch's own random state is left as it was. The module maps
    float32 images of shape ``(N, in_channels, resolution, resolution)`` to logits of shape ``(N, classes)``.

    Raises:
        ConfigError: a spec that :func:`make_spec` would not have made.
    """
    entry = resolve(spec.name)
    _check(spec, entry)
    torch = importlib.import_module("torch")
    family = importlib.import_module(f"edgecnn.zoo.{entry.family}")
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that seeds every accelerator too, and fork_rng restores only the CPU here.
        torch.random.default_generator.manual_seed(seed)
        model: nn.Module = family.build(spec)
    return model.eval()


def _check(spec: ModelSpec, entry: Entry) -> None:
    if not (math.isfinite(spec.width) and MIN_WIDTH <= spec.width <= MAX_WIDTH):
        raise ConfigError(
            f"{entry.name} cannot have width {spec.width:g}",
            hint=f"a width is from {MIN_WIDTH:g} to {MAX_WIDTH:g}; 1.0 is the paper's network",
        )
    if isinstance(spec.resolution, int) and entry.min_resolution <= spec.resolution <= entry.max_resolution:
        return
    if entry.min_resolution == entry.max_resolution:
        raise ConfigError(
            f"{entry.name} cannot have resolution {spec.resolution}: {entry.resolution_reason}",
            hint=f"leave the resolution out, or make it {entry.resolution}",
        )
    reason = f": {entry.resolution_reason}" if spec.resolution < entry.min_resolution else ""
    raise ConfigError(
        f"{entry.name} cannot have resolution {spec.resolution}{reason}",
        hint=f"from {entry.min_resolution} to {entry.max_resolution}; the default is {entry.resolution}",
    )
