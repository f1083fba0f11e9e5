"""First weights of a training that does not begin at random, and which layers learn how fast."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgecnn.errors import WeightsError
from edgecnn.training.recipe import Recipe
from edgecnn.zoo.checkpoint import Checkpoint, load_into

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def last_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """The layer that gives the logits: the last dense or convolutional one.

    Raises:
        WeightsError: the network has none.
    """
    layers = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not layers:
        raise WeightsError("the network has no dense or convolutional layer that could learn")
    return layers[-1]


def begin_from(model: nn.Module, name: str, checkpoint: Checkpoint) -> None:
    """Load a checkpoint; a last layer of other shape, for other classes, keeps its random weights.

    Raises:
        WeightsError: a checkpoint of another architecture, or values that are not finite.
    """
    own = model.state_dict()
    layer, _ = last_layer(model)
    keys = [key for key in own if key.startswith(f"{layer}.")]
    has = all(key in checkpoint.state for key in keys)
    fits = has and all(checkpoint.state[key].shape == own[key].shape for key in keys)
    kept = {key: own[key] for key in keys} if has and not fits else {}
    load_into(model, name, Checkpoint(checkpoint.name, checkpoint.sha256, {**checkpoint.state, **kept}))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters in groups for an optimizer, each with ``lr``, ``peak`` (the same, for the schedule) and
    ``weight_decay``.

    Rates rise geometrically from ``first_layer_rate`` at the first tensor to 1 at the last layer's.
    """
    _, module = last_layer(model)
    last = {id(parameter) for parameter in module.parameters()}
    plain = {
        id(parameter)
        for norm in model.modules()
        if isinstance(norm, _BATCH_NORMS)
        for parameter in norm.parameters()
    }
    plain |= {
        id(conv.weight)
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels > 1
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    parameters = list(model.parameters())
    for position, parameter in enumerate(parameters):
        depth = position / max(1, len(parameters) - 1)
        share = 1.0 if id(parameter) in last else recipe.first_layer_rate ** (1 - depth)
        decay = 0.0 if id(parameter) in plain or parameter.ndim == 1 else recipe.weight_decay
        groups.setdefault((share * recipe.learning_rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def freeze(model: nn.Module, frozen: bool) -> None:
    """Let only the last layer learn, or all; the statistics of frozen batch norms stay as they are."""
    _, last = last_layer(model)
    learning = {id(parameter) for parameter in last.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen or id(parameter) in learning)
    model.train()
    if frozen:
        for module in model.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
