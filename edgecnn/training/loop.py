"""The training loop: epochs of steps, a moving average of the weights, a state after each epoch."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgecnn.agent import host
from edgecnn.data.labelled import LabelledSet
from edgecnn.errors import ConfigError, EdgeCNNError
from edgecnn.progress import Progress
from edgecnn.spec import Preprocess
from edgecnn.training import state as states
from edgecnn.training.batches import Batches
from edgecnn.training.first import freeze, parameter_groups
from edgecnn.training.recipe import Recipe

_JUDGED_AT_ONCE = 250
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images."""

    number: int
    """From 1."""
    loss: float
    """Mean over its steps."""
    top1_percent: float
    """Of the averaged weights, on the images that training never sees."""
    seconds: float
    """How long it took, judging included."""


@dataclass(frozen=True)
class Teacher:
    """A network whose outputs another learns from."""

    model: nn.Module
    """In eval mode."""
    preprocess: Preprocess
    """Its own input: same size as the learner's, own mean and deviation."""


class TrainingDiverged(EdgeCNNError):
    """The loss is no longer a number."""


def fit(
    model: nn.Module,
    data: LabelledSet,
    held_out: LabelledSet,
    preprocess: Preprocess,
    recipe: Recipe,
    teacher: Teacher | None,
    state: Path,
    about: dict[str, Any],
    progress: Progress,
) -> list[Epoch]:
    """Train a network in place and leave it with the averaged weights, in eval mode, on the CPU.

    The result depends on recipe, data and first weights alone, on one kind of machine; a training that was
    ended at any moment goes on from ``state`` and gives the same.

    Args:
        model: float images (N, C, H, W), normalised, to logits (N, classes).
        data: the images it learns from.
        held_out: those that it is judged on after each epoch; they decide nothing.
        preprocess: how images become inputs.
        recipe: how it is trained.
        teacher: whose outputs are part of the loss where ``recipe.distill_weight`` is not 0.
        state: file of the state, written after each epoch.
        about: identifies the training: a state with another is refused.
        progress: told of every step, with the curve so far.

    Raises:
        ConfigError: ``state`` belongs to another training.
        TrainingDiverged: the loss is not finite.
        OutputError: the state cannot be written; the last one is still there.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if teacher is not None:
        teacher.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, recipe)
    average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    epochs = _resume(state, about, model, average, optimizer, device)
    batches = Batches(data, preprocess, recipe.batch, recipe.seed)
    normalise = _normaliser(preprocess, device)
    loss_of = _loss(recipe, teacher, device)
    steps = recipe.epochs * len(batches)
    for number in range(len(epochs) + 1, recipe.epochs + 1):
        start = time.monotonic()
        freeze(model, number <= recipe.frozen_epochs)
        total = 0.0
        for index, (images, labels) in enumerate(batches.epoch(number)):
            step = (number - 1) * len(batches) + index
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * recipe.rate(step, steps)
            pixels = images.to(device, non_blocking=True)
            with _bfloat16(device, device.type == "cuda"):
                loss = loss_of(model(normalise(pixels)), pixels, labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _average(average, model, step, recipe.ema_steps)
            total += float(loss.detach())
            if not math.isfinite(total):
                raise TrainingDiverged(
                    f"training diverged in epoch {number}: the loss is {total}",
                    hint="lower --learning-rate; the state of the last epoch is kept",
                )
            progress(_describe(number, recipe.epochs, total / (index + 1), epochs), step + 1, steps)
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(average)
        top1 = top1_percent(model, held_out, preprocess)
        model.load_state_dict(own)
        epochs.append(Epoch(number, total / len(batches), top1, time.monotonic() - start))
        _save(state, about, model, average, optimizer, epochs)
    model.load_state_dict(average)
    model.eval().to("cpu").requires_grad_(True)
    return epochs


def top1_percent(model: nn.Module, data: LabelledSet, preprocess: Preprocess) -> float:
    """Share of images whose label has the highest logit, in percent; the model is left in eval mode."""
    device = next(model.parameters()).device
    model.eval()
    inputs = data.inputs(preprocess)
    right = 0
    with torch.no_grad():
        for start in range(0, len(data), _JUDGED_AT_ONCE):
            rows = range(start, min(start + _JUDGED_AT_ONCE, len(data)))
            x = torch.cat([torch.from_numpy(inputs.input(row)) for row in rows]).to(device)
            logits = model(x.to(memory_format=torch.channels_last))
            right += int((logits.argmax(1).cpu().numpy() == data.labels[start : start + len(rows)]).sum())
    return 100 * right / len(data)


def sparkline(values: list[float]) -> str:
    """A curve of one line, from the least to the greatest of the values."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1))] for value in values[-24:])


def _describe(number: int, of: int, loss: float, epochs: list[Epoch]) -> str:
    curve = [epoch.top1_percent for epoch in epochs]
    reached = f", top-1 {curve[-1]:.1f} % {sparkline(curve)}" if curve else ""
    return f"epoch {number} of {of}, loss {loss:.3f}{reached}"


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True)


def _normaliser(recipe: Preprocess, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    mean = torch.tensor(recipe.mean, device=device).reshape(1, -1, 1, 1)
    std = torch.tensor(recipe.std, device=device).reshape(1, -1, 1, 1)
    return lambda pixels: (pixels - mean) / std


def _loss(
    recipe: Recipe, teacher: Teacher | None, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Of logits, pixels and labels."""
    if teacher is None:
        return lambda logits, _, labels: functional.cross_entropy(
            logits.float(), labels, label_smoothing=recipe.label_smoothing
        )
    taught, normalise, weight, warm = (
        teacher.model,
        _normaliser(teacher.preprocess, device),
        recipe.distill_weight,
        recipe.temperature,
    )

    def distilled(logits: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Its answers alone are used: on a CPU with such instructions they come twice as fast so.
        with torch.no_grad(), _bfloat16(device, True):
            answers = taught(normalise(pixels)).float()
        soft = functional.log_softmax(answers / warm, 1)
        own = functional.log_softmax(logits.float() / warm, 1)
        # Times the square of the temperature: gradients of the two shares stay comparable (section 2).
        apart = functional.kl_div(own, soft, reduction="batchmean", log_target=True) * warm**2
        return weight * apart + (1 - weight) * functional.cross_entropy(logits.float(), labels)

    return distilled


def _bfloat16(device: torch.device, wanted: bool) -> torch.autocast:
    """Where the device computes in it; it needs no scaling of the loss, as float16 would."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and _has_bfloat16(device.type))


@functools.cache  # asked at every step, and a CPU's answer is in a file
def _has_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(host.facts()["cpu_features"] or ())


@torch.no_grad()
def _average(average: dict[str, torch.Tensor], model: nn.Module, step: int, length: int) -> None:
    # At the start the average is short, so that the random weights do not stay in it.
    share = 1 / min(step + 1, length)
    own = model.state_dict()
    floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floats], [own[name] for name in floats], share)
    for name in own.keys() - set(floats):
        average[name].copy_(own[name])


def _save(
    path: Path,
    about: dict[str, Any],
    model: nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: list[Epoch],
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    numbers: dict[str, dict[str, float]] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            elif value is not None:
                numbers.setdefault(str(index), {})[name] = value
    states.save(
        path,
        tensors,
        {"about": about, "epochs": [asdict(epoch) for epoch in epochs], "optimizer": numbers},
    )


def _resume(
    path: Path,
    about: dict[str, Any],
    model: nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[Epoch]:
    """Bring everything to where the state left it; the epochs that are done."""
    if not path.exists():
        return []
    tensors, saved = states.load(path)
    if saved.get("about") != about:
        raise ConfigError(
            f"{path.parent} holds another training",
            hint="pass --force to start anew, or -o for another folder",
        )

    def part(name: str) -> dict[str, torch.Tensor]:
        return {
            key.removeprefix(name): value.to(device) for key, value in tensors.items() if key.startswith(name)
        }

    model.load_state_dict(part("model."))
    for name, tensor in part("average.").items():
        average[name].copy_(tensor)
    kept: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in saved["optimizer"].items()
    }
    for key, tensor in part("optimizer.").items():
        index, _, name = key.partition(".")
        kept.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": kept})
    return [Epoch(**epoch) for epoch in saved["epochs"]]
