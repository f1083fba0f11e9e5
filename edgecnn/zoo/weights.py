"""Weights for zoo models: published ones by content hash, the user's own files, or none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from edgecnn.errors import ConfigError, WeightsError
from edgecnn.fetch.fetch import fetch
from edgecnn.progress import Progress, silent
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.target import did_you_mean
from edgecnn.zoo.about import about
from edgecnn.zoo.checkpoint import Checkpoint, adapted, load_into, read_checkpoint
from edgecnn.zoo.labels import read_labels
from edgecnn.zoo.published import PublishedWeights
from edgecnn.zoo.registry import Entry, list_models, resolve, variant
from edgecnn.zoo.settle import settle_batch_norm
from edgecnn.zoo.shipped import shipped_weights

_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class LoadedWeights:
    """What a model was loaded with."""

    kind: Literal["imagenet", "random", "file", "own"]
    """``imagenet`` for published weights, ``random`` for none, ``file`` for a checkpoint of the user's,
    ``own`` for those that a model file came with."""
    description: str
    """One line for people."""
    preprocess: Preprocess
    """Input preparation at the network's resolution: the weights' own, or the best known default."""
    sha256: str | None = None
    """SHA-256 of the checkpoint file; None for random weights."""
    file_name: str | None = None
    """Name of the checkpoint file; None for random weights."""
    labels: tuple[str, ...] | None = None
    """Names of the outputs, where they are known."""
    trained_resolution: int | None = None
    """Resolution of the published accuracy, in pixels, where it is known."""
    top1_percent: float | None = None
    """Published top-1 accuracy at the trained resolution, in percent, where there is one."""
    top1_source: str | None = None
    """What that was measured on, where it is not the validation set of the labels."""
    licence: str | None = None
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
        source: ``random`` (as it was built, with batch norm settled), or what :func:`read_weights` reads.
        progress: told of a fetch under way.

    Raises:
        ConfigError: a variant without such weights, or a source that is neither a name nor a file.
        WeightsError: weights that cannot be fetched, read safely, or fitted to the model.
    """
    if source == "random":
        default = resolve(spec.name).preprocess.fitted(*spec.input_shape[1:])
        settle_batch_norm(model, default)
        return random_weights(default)
    checkpoint, loaded = read_weights(spec, source, progress)
    load_into(model, variant(spec), checkpoint)
    return loaded


def read_weights(
    spec: ModelSpec, source: str, progress: Progress = silent
) -> tuple[Checkpoint, LoadedWeights]:
    """Trained weights for a network, under the names of its state dict, and what is known of them.

    Args:
        spec: the network.
        source: ``imagenet`` (published), the name of a set that weights for it were trained on and that
            travel with the package, such as ``cifar10``, or the path of a .pth, .pt or .safetensors file.
        progress: told of a fetch under way.

    Raises:
        ConfigError: a variant without such weights, or a source that is neither a name nor a file.
        WeightsError: weights that cannot be fetched or read safely.
    """
    entry = resolve(spec.name)
    if source == "imagenet":
        published = _published_for(spec, entry)
        checkpoint = read_checkpoint(fetch(published.file, progress))
        loaded = _loaded("imagenet", spec, entry, published, checkpoint)
        return adapted(checkpoint, published.ignore, published.rename), loaded
    shipped = shipped_weights(spec).get(source)
    checkpoint = read_weights_file(str(shipped or source), spec)
    for known in list_models():
        # The user's copy of a published file, known by its bytes whatever it is called.
        if known.weights is not None and checkpoint.sha256.startswith(known.weights.file.sha256):
            loaded = _loaded("file", spec, known, known.weights, checkpoint)
            return adapted(checkpoint, known.weights.ignore, known.weights.rename), loaded
    default = entry.preprocess.fitted(*spec.input_shape[1:])
    loaded = weights_of_file(checkpoint, default)
    described = about(shipped or Path(source))
    if described:
        loaded = _of_training(loaded, described, spec, licence="Apache-2.0" if shipped else None)
    return checkpoint, loaded


def read_weights_file(source: str, spec: ModelSpec | None = None) -> Checkpoint:
    """The checkpoint that ``--weights FILE`` names; ``spec`` says which names there could have been.

    Raises:
        ConfigError: it looks like no file and is none.
        WeightsError: it cannot be read safely.
    """
    path = Path(source)
    if path.suffix not in _SUFFIXES and not path.exists():
        names = ["random"]
        if spec is not None:
            names += [*shipped_weights(spec), *(["imagenet"] if resolve(spec.name).weights else [])]
        raise ConfigError(
            f"unknown weights '{source}'",
            hint=f"{did_you_mean(source, names)}, or pass a {', '.join(_SUFFIXES)} file",
        )
    return read_checkpoint(path)


def random_weights(preprocess: Preprocess) -> LoadedWeights:
    """The record of weights that nobody trained."""
    return LoadedWeights("random", "random weights, untrained", preprocess)


def weights_of_file(checkpoint: Checkpoint, preprocess: Preprocess) -> LoadedWeights:
    """The record of a checkpoint that is nobody's published one."""
    return LoadedWeights(
        "file", f"weights of {checkpoint.name}", preprocess, checkpoint.sha256, checkpoint.name
    )


def _of_training(
    loaded: LoadedWeights, described: dict[str, Any], spec: ModelSpec, licence: str | None
) -> LoadedWeights:
    """The record of a checkpoint that ``edgecnn train`` wrote.

    Raises:
        WeightsError: a description that is damaged.
    """
    try:
        recipe = Preprocess.from_json(described["preprocess"]).fitted(*spec.input_shape[1:])
        held_out = described["held_out"]
        return replace(
            loaded,
            description=f"weights trained on {described['train']['name']} ({loaded.file_name})",
            preprocess=recipe,
            labels=tuple(map(str, described["labels"])),
            trained_resolution=int(described["network"]["resolution"]),
            top1_percent=float(described["top1_percent"]),
            top1_source=f"{held_out['name']}, {held_out['images']} images",
            licence=licence,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{loaded.file_name} describes itself in a way that edgecnn does not write",
            hint="remove its metadata, or train it again",
        ) from error


def _published_for(spec: ModelSpec, entry: Entry) -> PublishedWeights:
    own = (entry.classes, entry.in_channels, 1.0)
    if entry.weights is not None and (spec.classes, spec.in_channels, spec.width) == own:
        return entry.weights
    reason = f"only for {entry.name} at width 1 with {entry.classes} classes and {entry.in_channels} channels"
    if entry.weights is None:
        reason = "only for the networks that `edgecnn zoo` marks so"
    raise ConfigError(
        f"there are no published ImageNet weights for {variant(spec)}, {reason}",
        hint="pass --weights random (fine for latency), or --weights FILE with your own",
    )


def _loaded(
    kind: Literal["imagenet", "file"],
    spec: ModelSpec,
    entry: Entry,
    published: PublishedWeights,
    checkpoint: Checkpoint,
) -> LoadedWeights:
    return LoadedWeights(
        kind=kind,
        description=published.description,
        sha256=checkpoint.sha256,
        file_name=checkpoint.name,
        preprocess=published.preprocess.fitted(*spec.input_shape[1:]),
        labels=read_labels(published.labels),
        trained_resolution=entry.resolution,
        top1_percent=entry.top1_percent,
        licence=published.licence,
    )
