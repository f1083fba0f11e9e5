"""A network, a labelled set and a recipe -> trained weights and the record of how they came about."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import safetensors.torch
import torch
from torch import nn

from edgecnn.accuracy.interval import Share
from edgecnn.agent import host
from edgecnn.data.labelled import LabelledSet
from edgecnn.data.open_set import open_set, split_text
from edgecnn.errors import ConfigError, DataError, OutputError, WeightsError
from edgecnn.progress import Progress, silent
from edgecnn.spec import ModelSpec, Preprocess
from edgecnn.training import recipe as recipes
from edgecnn.training import state as states
from edgecnn.training.first import begin_from
from edgecnn.training.loop import Epoch, Teacher, fit
from edgecnn.training.recipe import Recipe
from edgecnn.versions import tool_versions
from edgecnn.zoo import build, make_spec, resolve, variant
from edgecnn.zoo.about import about
from edgecnn.zoo.weights import load_weights, read_weights

WEIGHTS, RECORD, _STATE, _LOCK = "weights.safetensors", "training.json", "state.safetensors", ".lock"


@dataclass(frozen=True)
class Training:
    """What a training left."""

    folder: Path
    """Holds ``weights.safetensors`` and ``training.json``."""
    spec: ModelSpec
    """The network."""
    epochs: tuple[Epoch, ...]
    """The curve."""
    top1_percent: float
    """Of the weights that were kept, on the images that training never saw."""
    record: dict[str, Any]
    """All of ``training.json``."""

    @property
    def weights(self) -> Path:
        """The checkpoint: pass it as ``weights`` to export, eval, bench or another training."""
        return self.folder / WEIGHTS


def train(
    model: str,
    data: str | Path,
    *,
    epochs: int | None = None,
    start: str | Path | None = None,
    freeze: int | None = None,
    distill: str | Path | Teacher | None = None,
    width: float | None = None,
    resolution: int | None = None,
    in_channels: int | None = None,
    batch: int | None = None,
    optimizer: Literal["sgd", "adamw"] | None = None,
    learning_rate: float | None = None,
    first_layer_rate: float | None = None,
    weight_decay: float | None = None,
    label_smoothing: float | None = None,
    ema_steps: int | None = None,
    seed: int | None = None,
    output: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Training:
    """Train a network of the zoo to tell the classes of a labelled set apart.

    Interrupted at any moment, the same call goes on from the last epoch.

    Args:
        model: a name of ``edgecnn.list_models()``.
        data: a folder of class folders, a CSV of file and label, or a named set, without a part: it learns
            from the ``train`` part and is judged on the ``test`` part.
        epochs: passes over the training images; None for 30 from scratch, 12 from a checkpoint.
        start: first weights: ``imagenet``, the name of shipped ones, or a checkpoint; None for random ones.
        freeze: epochs in which only the last layer learns; None for none from scratch, else a third.
        distill: whose outputs are part of what this one learns: a checkpoint of :func:`train`, or a
            :class:`~edgecnn.training.loop.Teacher` with any other network for the same classes and input.
        width: multiplier on the channel counts.
        resolution: side of the input in pixels.
        in_channels: channels of the input.
        batch: images a step.
        optimizer: ``sgd`` or ``adamw``.
        learning_rate: at its peak, in the last layer.
        first_layer_rate: the first layer's as a share of it; None for 1 from scratch, 0.05 from a checkpoint.
        weight_decay: of weights in convolutions and dense layers.
        label_smoothing: share of each label that is spread over all classes.
        ema_steps: length of the moving average of the weights, which is what is kept.
        seed: of first weights, order and augmentation.
        output: the folder of the result; None for ``<model>-<set>`` here.
        force: start anew, and replace what is there.
        progress: told of every step.

    Raises:
        EdgeCNNError: one of its subclasses; what the last epoch left stays where it was.
    """
    whole, part = split_text(data)
    if part is not None:
        raise ConfigError(
            f"a training takes the whole set, not {data}",
            hint=f"pass {whole}: it learns from {whole}:train and is judged on {whole}:test",
        )
    learning = open_set(data, "train", progress)
    _check_classes(learning)
    held_out = open_set(data, "test", progress)
    _check(learning, held_out)
    spec = make_spec(model, width, resolution, len(learning.classes), in_channels)
    choices = {
        "batch": batch,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "first_layer_rate": first_layer_rate,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "ema_steps": ema_steps,
        "seed": seed,
    }
    given = {name: value for name, value in choices.items() if value is not None}
    chosen = replace(_recipe(epochs, start is not None, freeze, distill is not None), **given)  # type: ignore[arg-type]
    set_name = learning.name.partition(":")[0]
    folder = Path(output) if output is not None else Path(f"{variant(spec)}-{set_name}")
    _check_place(folder, force=force)
    progress(f"building {variant(spec)}", 0, None)
    network = build(spec, chosen.seed)
    preprocess = resolve(spec.name).preprocess.fitted(*spec.input_shape[1:])
    first = None
    if start is not None:
        # A name stands for weights with their own classes; a file says itself what it holds.
        origin = spec if Path(start).exists() else replace(spec, classes=resolve(spec.name).classes)
        try:
            checkpoint, loaded = read_weights(origin, str(start), progress)
        except ConfigError as error:
            if start == "imagenet":
                error.hint = "name a checkpoint with --from, or leave it out to begin with random weights"
            raise
        begin_from(network, variant(spec), checkpoint)
        first, preprocess = checkpoint.sha256, loaded.preprocess
    teacher, teacher_sha256 = _teacher(distill, spec, preprocess)
    identity: dict[str, Any] = {
        "network": asdict(spec),
        "recipe": chosen.to_json(),
        "train": {"name": learning.name, "images": len(learning), "sha256": learning.sha256},
        "held_out": {"name": held_out.name, "images": len(held_out), "sha256": held_out.sha256},
        "first_weights_sha256": first,
        "teacher_sha256": teacher_sha256,
    }
    with _alone(folder):
        if force:
            for name in (_STATE, RECORD, WEIGHTS):
                (folder / name).unlink(missing_ok=True)
        return _carry_out(
            folder, network, spec, learning, held_out, preprocess, chosen, teacher, identity, progress
        )


def _carry_out(
    folder: Path,
    network: nn.Module,
    spec: ModelSpec,
    learning: LabelledSet,
    held_out: LabelledSet,
    preprocess: Preprocess,
    recipe: Recipe,
    teacher: Teacher | None,
    identity: dict[str, Any],
    progress: Progress,
) -> Training:
    state = folder / _STATE
    curve = fit(network, learning, held_out, preprocess, recipe, teacher, state, identity, progress)
    top1 = curve[-1].top1_percent
    judged = Share(round(top1 * len(held_out) / 100), len(held_out))
    record = identity | {
        "top1_percent": top1,
        "top1_interval_percent": [100 * bound for bound in judged.interval],
        "most_frequent_percent": 100 * float(np.bincount(held_out.labels).max()) / len(held_out),
        "epochs": [asdict(epoch) for epoch in curve],
        "seconds": sum(epoch.seconds for epoch in curve),
        "finished_unix_s": round(time.time()),
        "machine": host.facts()
        | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "versions": tool_versions(),
    }
    save_weights(folder / WEIGHTS, network, spec, preprocess, learning.classes, record)
    states.save_json(folder / RECORD, record)
    state.unlink(missing_ok=True)
    return Training(folder, spec, tuple(curve), top1, record)


def _check_place(folder: Path, *, force: bool) -> None:
    """Refuse a folder that holds something else, or a training that is done."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="choose another with -o")
    ours = {WEIGHTS, RECORD, _STATE, _LOCK}
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if strangers := sorted(name for name in found - ours if not name.startswith(".")):
        raise ConfigError(
            f"{folder} holds files that no training wrote: {', '.join(strangers[:3])}",
            hint="choose another folder with -o",
        )
    if RECORD in found and not force:
        raise ConfigError(
            f"{folder} holds a finished training", hint="pass --force to replace it, or -o for another folder"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for one training at a time.

    Raises:
        ConfigError: another process trains there.
        OutputError: the folder cannot be made or written.
    """
    lock = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock, timeout=0)
        held.acquire()
    except filelock.Timeout as error:
        raise ConfigError(
            f"another training is at work in {folder}", hint="wait for it, or choose another folder with -o"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}", hint="choose another folder with -o"
        ) from error
    try:
        yield
    finally:
        held.release()
        with contextlib.suppress(OSError):
            lock.unlink()


def save_weights(
    path: Path,
    network: nn.Module,
    spec: ModelSpec,
    preprocess: Preprocess,
    labels: tuple[str, ...],
    record: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint that says what it is: network, input preparation, classes, accuracy.

    Args:
        path: the .safetensors file.
        network: whose state dict is written.
        spec: what it is.
        preprocess: how its inputs are prepared.
        labels: its classes.
        record: of its training.
        dtype: in which floats are stored.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    kept = ("train", "held_out", "top1_percent")
    description = {"network": asdict(spec), "preprocess": preprocess.to_json(), "labels": list(labels)}
    states.save(path, tensors, description | {name: record[name] for name in kept})


def _check_classes(learning: LabelledSet) -> None:
    if len(learning.classes) < 2:
        raise DataError(
            f"{learning.name} has one class: there is nothing to tell apart",
            hint="one folder a class, with at least two folders",
        )


def _check(learning: LabelledSet, held_out: LabelledSet) -> None:
    if len(learning) < 2 or not len(held_out):
        raise DataError(
            f"{learning.name} has too few images: {len(learning)}, and {len(held_out)} to be judged on",
            hint="a few dozen images a class are the least that teaches anything",
        )


def _recipe(epochs: int | None, transfer: bool, freeze: int | None, taught: bool) -> Recipe:
    make = recipes.transfer if transfer else recipes.scratch
    chosen = make() if epochs is None else make(epochs)
    if freeze is not None:
        if not transfer and freeze:
            raise ConfigError(
                "there is nothing to freeze: the weights are random", hint="name first weights with --from"
            )
        chosen = replace(chosen, frozen_epochs=freeze)
    return replace(chosen, distill_weight=0.9) if taught else chosen


def _teacher(
    distill: str | Path | Teacher | None, spec: ModelSpec, preprocess: Preprocess
) -> tuple[Teacher | None, str | None]:
    """The teaching network, and the SHA-256 of its checkpoint, or of its weights where it has none.

    Raises:
        WeightsError: a file that does not say which network it is.
        ConfigError: a network for another task or another input.
    """
    if distill is None:
        return None, None
    if isinstance(distill, Teacher):
        return distill, hashlib.sha256(safetensors.torch.save(distill.model.state_dict())).hexdigest()
    if not Path(distill).is_file():
        raise WeightsError(
            f"there is no teacher {distill}", hint="pass a weights.safetensors of `edgecnn train`"
        )
    try:
        taught = ModelSpec(**about(Path(distill))["network"])
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{distill} does not say which network it is",
            hint="a teacher is a weights.safetensors that `edgecnn train` wrote",
        ) from error
    if (taught.classes, *taught.input_shape) != (spec.classes, *spec.input_shape):
        raise ConfigError(
            f"{variant(taught)} cannot teach {variant(spec)}",
            hint="teacher and network have the same classes and the same input",
        )
    network = build(taught)
    loaded = load_weights(taught, network, str(distill))
    return Teacher(network.eval(), loaded.preprocess), loaded.sha256
