"""The architectures as rows, and the four questions asked of them: list, resolve, make a spec, build.

A family is a module of ``edgecnn.zoo.families`` with ``build(spec)`` and, beside it, a TOML file with its
rows: the fields of :class:`Entry`, and below ``weights`` what :func:`_weights` reads. Top-level keys hold for
all of its ``[[model]]`` tables, which may say otherwise.
"""

from __future__ import annotations

import importlib
import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.errors import ConfigError
from edgecnn.fetch.published import PackagePlace, PublishedFile, UrlPlace
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.target import did_you_mean
from edgecnn.zoo.published import PublishedWeights

if TYPE_CHECKING:
    from torch import nn

MIN_WIDTH = 0.01
MAX_WIDTH = 4.0
MAX_RESOLUTION = 4096
MAX_CLASSES = 100_000
MAX_IN_CHANNELS = 1024


@dataclass(frozen=True)
class Entry:
    """One architecture of the zoo, at width 1.0 unless a spec says otherwise."""

    name: str
    """Canonical name, the one in specs and file names."""
    aliases: tuple[str, ...]
    """Other names that :func:`resolve` accepts."""
    family: str
    """The module of ``edgecnn.zoo.families`` whose ``build`` makes it."""
    resolution: int
    """Default height and width of the input, in pixels."""
    min_resolution: int
    """Least height and width the network can take, in pixels."""
    min_resolution_reason: str
    """Why it is not less, for the error that refuses a smaller one."""
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
    top1_percent: float | None
    """Published top-1 accuracy in percent, where there is one."""
    top1_source: str | None
    """Who published it, and on what."""
    weights: PublishedWeights | None
    """What ``--weights imagenet`` means for the network at width 1.0."""


def list_models() -> list[Entry]:
    """All architectures, by family and size."""
    return list(_entries().values())


def resolve(name: str) -> Entry:
    """The entry of that name or alias.

    Raises:
        ConfigError: no such model; the hint lists the nearest names.
    """
    by_name = {known: entry for entry in list_models() for known in (entry.name, *entry.aliases)}
    if name not in by_name:
        hint = did_you_mean(name.lower(), list(by_name))
        raise ConfigError(f"unknown model '{name}'", hint=f"{hint}; `edgecnn zoo` lists all")
    return by_name[name]


def make_spec(
    name: str,
    width: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
) -> ModelSpec:
    """A variant of the named model; what is left out is the architecture's default.

    Args:
        name: canonical name or alias.
        width: multiplier on the channel counts, from 0.01 to 4.
        resolution: height and width of the input, in pixels.
        classes: number of outputs.
        in_channels: channels of the input.

    Raises:
        ConfigError: an unknown model, or a variant that it cannot have.
    """
    entry = resolve(name)
    spec = ModelSpec(
        name=entry.name,
        width=1.0 if width is None else float(width),
        resolution=entry.resolution if resolution is None else resolution,
        classes=entry.classes if classes is None else classes,
        in_channels=entry.in_channels if in_channels is None else in_channels,
    )
    _check(spec, entry)
    return spec


def variant(spec: ModelSpec) -> str:
    """The name in file names, such as ``mobilenet_v2-1.0-224``; classes and channels where they are changed.

    Raises:
        ConfigError: no such model.
    """
    entry = resolve(spec.name)
    width = f"{spec.width:g}" if spec.width % 1 else f"{spec.width:.1f}"
    classes = f"-{spec.classes}classes" if spec.classes != entry.classes else ""
    channels = f"-{spec.in_channels}channels" if spec.in_channels != entry.in_channels else ""
    return f"{spec.name}-{width}-{spec.resolution}{classes}{channels}"


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
    family = importlib.import_module(f"edgecnn.zoo.families.{entry.family}")
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
    for count, what, most in (
        (spec.classes, "classes", MAX_CLASSES),
        (spec.in_channels, "input channels", MAX_IN_CHANNELS),
    ):
        if not (isinstance(count, int) and 1 <= count <= most):
            raise ConfigError(f"{entry.name} cannot have {count} {what}", hint=f"from 1 to {most}")
    if isinstance(spec.resolution, int) and entry.min_resolution <= spec.resolution <= MAX_RESOLUTION:
        return
    reason = f": {entry.min_resolution_reason}" if spec.resolution < entry.min_resolution else ""
    raise ConfigError(
        f"{entry.name} cannot have resolution {spec.resolution}{reason}",
        hint=f"from {entry.min_resolution} to {MAX_RESOLUTION}; the default is {entry.resolution}",
    )


@cache
def _entries() -> dict[str, Entry]:
    folder = Path(__file__).parent / "families"
    return {entry.name: entry for path in sorted(folder.glob("*.toml")) for entry in _family(path)}


def _family(path: Path) -> list[Entry]:
    rows = tomllib.loads(path.read_text(encoding="utf-8"))
    models = rows.pop("model")
    return [_entry(path.stem, rows | model) for model in models]


def _entry(family: str, row: dict[str, Any]) -> Entry:
    recipe = _preprocess(row.pop("preprocess"), row["resolution"])
    weights = row.pop("weights", None)
    return Entry(
        family=family,
        aliases=tuple(row.pop("aliases", ())),
        classes=row.pop("classes", 1000),
        in_channels=row.pop("in_channels", 3),
        top1_percent=row.pop("top1_percent", None),
        top1_source=row.pop("top1_source", None),
        preprocess=recipe,
        weights=None if weights is None else _weights(weights, recipe, row["resolution"]),
        **row,
    )


def _preprocess(row: dict[str, Any], resolution: int) -> Preprocess:
    return Preprocess(
        resize=row["resize"],
        crop=(resolution, resolution),
        mean=tuple(row["mean"]),
        std=tuple(row["std"]),
        interpolation=row.get("interpolation", "bilinear"),
    )


def _weights(row: dict[str, Any], recipe: Preprocess, resolution: int) -> PublishedWeights:
    places: list[PackagePlace | UrlPlace] = []
    if "package" in row:
        package = row["package"]
        places.append(PackagePlace(package["name"], package["version"], package["member"]))
    if "url" in row:
        places.append(UrlPlace(row["url"]))
    return PublishedWeights(
        file=PublishedFile(row["file"], row["sha256"], row.get("size_bytes"), tuple(places)),
        description=row["description"],
        preprocess=_preprocess(row["preprocess"], resolution) if "preprocess" in row else recipe,
        labels=row["labels"],
        licence=row["licence"],
        ignore=tuple(row.get("ignore", ())),
        rename=tuple(row["rename"]) if "rename" in row else None,
    )
