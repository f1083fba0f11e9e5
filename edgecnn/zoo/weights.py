"""Weights for zoo models: published ones by content hash, the user's own files, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from edgecnn.errors import ConfigError
from edgecnn.progress import Progress, silent
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.target import did_you_mean
from edgecnn.zoo.checkpoint import Checkpoint, load_into, read_checkpoint
from edgecnn.zoo.fetch import fetch
from edgecnn.zoo.labels import read_labels
from edgecnn.zoo.published import PUBLISHED, PublishedWeights
from edgecnn.zoo.registry import resolve

_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class LoadedWeights:
    """What a model was loaded with."""

    kind: Literal["imagenet", "random", "file"]
    """``imagenet`` for published weights, ``random`` for none, ``file`` for the user's own."""
    description: str
    """One line for people."""
    sha256: str | None
    """SHA-256 of the checkpoint file; None for random weights."""
    file_name: str | None
    """Name of the checkpoint file; None for random weights."""
    preprocess: Preprocess
    """Input preparation at the spec's resolution: the weights' own, or the architecture's default."""
    labels: tuple[str, ...] | None
    """Names of the outputs, where they are known."""
    trained_resolution: int | None
    """Resolution of the published accuracy, in pixels, where it is known."""
    top1_percent: float | None
    """Published top-1 accuracy at the trained resolution, in percent, where there is one."""
    licence: str | None
    """Licence of the weights, where it is known."""

    @property
    def random(self) -> bool:
        """Whether the weights are untrained: good for latency, meaningless for accuracy."""
        return self.kind == "random"


def load_weights(
    spec: ModelSpec, model: nn.Module, source: str, progress: Progress = silent
) -> LoadedWeights:
    """Load weights into a model that :func:`edgecnn.zoo.build` made, in place.

    Args:
        spec: what the model is.
        model: changed only if everything fits.
        source: ``imagenet``, ``random`` (the model stays as it was built), or the path of a .pth, .pt or
            .safetensors file.
        progress: told of a fetch under way.

    Raises:
        ConfigError: a variant without published weights, or a source that is neither a name nor a file.
        WeightsError: weights that cannot be fetched, read safely, or fitted to the model.
    """
    if source == "random":
        return LoadedWeights(
            kind="random",
            description="random weights, untrained",
            sha256=None,
            file_name=None,
            preprocess=resolve(spec.name).preprocess.at(spec.resolution),
            labels=None,
            trained_resolution=None,
            top1_percent=None,
            licence=None,
        )
    if source == "imagenet":
        published = _published_for(spec)
        checkpoint = read_checkpoint(fetch(published.file, progress))
        load_into(model, spec, checkpoint)
        return _loaded("imagenet", spec, published, checkpoint)
    path = Path(source)
    if path.suffix not in _SUFFIXES and not path.exists():
        raise ConfigError(
            f"unknown weights '{source}'",
            hint=f"{did_you_mean(source, ['imagenet', 'random'])}, or pass a {', '.join(_SUFFIXES)} file",
        )
    checkpoint = read_checkpoint(path)
    load_into(model, spec, checkpoint)
    for published in PUBLISHED:
        # The user's copy of a published file, known by its bytes whatever it is called.
        if published.file.sha256 == checkpoint.sha256:
            return _loaded("file", spec, published, checkpoint)
    return LoadedWeights(
        kind="file",
        description=f"weights of {checkpoint.name}",
        sha256=checkpoint.sha256,
        file_name=checkpoint.name,
        preprocess=resolve(spec.name).preprocess.at(spec.resolution),
        labels=None,
        trained_resolution=None,
        top1_percent=None,
        licence=None,
    )


def _published_for(spec: ModelSpec) -> PublishedWeights:
    for published in PUBLISHED:
        trained = published.spec
        if (trained.name, trained.width, trained.classes, trained.in_channels) == (
            spec.name,
            spec.width,
            spec.classes,
            spec.in_channels,
        ):
            return published
    known = ", ".join(f"{published.spec.name} at width {published.spec.width:g}" for published in PUBLISHED)
    raise ConfigError(
        f"there are no published ImageNet weights for {spec.variant}, only for {known}",
        hint="pass --weights random (fine for latency), or --weights FILE with your own",
    )


def _loaded(
    kind: Literal["imagenet", "file"], spec: ModelSpec, published: PublishedWeights, checkpoint: Checkpoint
) -> LoadedWeights:
    return LoadedWeights(
        kind=kind,
        description=published.description,
        sha256=checkpoint.sha256,
        file_name=checkpoint.name,
        preprocess=published.preprocess.at(spec.resolution),
        labels=read_labels(published.labels),
        trained_resolution=published.spec.resolution,
        top1_percent=published.top1_percent,
        licence=published.licence,
    )
