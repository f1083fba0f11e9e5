"""Read a checkpoint without running any of it, and load it into a model whole or not at all."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from edgecnn.errors import WeightsError, one_line
from edgecnn.zoo.registry import build, list_models, make_spec

_WRAPPERS = ("state_dict", "model")
_FORMATS = "weights are a .safetensors file or a state dict saved with torch.save"
# What checkpoints of older torch versions lack; batch norm in eval mode does not read it.
_OPTIONAL = "num_batches_tracked"
# The widths of the published families, tried when a file is recognised.
_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one file."""

    name: str
    """Name of the file, for messages."""
    sha256: str
    """SHA-256 of the bytes that the tensors were read from."""
    state: Mapping[str, torch.Tensor]
    """The state dict, freed of wrappers and of a ``module.`` before every name."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or a file of ``torch.save`` that holds tensors only.

    Raises:
        WeightsError: a file that is missing, damaged, no state dict, or a pickle that would run code.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (
            "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        raise WeightsError(f"weights file {path} {reason}", hint=_FORMATS) from error
    loaded = _read_safetensors(path, data) if path.suffix == ".safetensors" else _read_pickle(path, data)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path} holds no state dict but a {type(loaded).__name__}", hint=_FORMATS)
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{path} holds no state dict: {key!r} is a {type(value).__name__}", hint=_FORMATS
            )
    if all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): value for key, value in loaded.items()}
    return Checkpoint(name=path.name, sha256=hashlib.sha256(data).hexdigest(), state=dict(loaded))


def adapted(checkpoint: Checkpoint, ignore: tuple[str, ...], rename: tuple[str, str] | None) -> Checkpoint:
    """The checkpoint without the tensors whose names begin with one of ``ignore``, the others renamed.

    Args:
        checkpoint: what was read; it stays as it is.
        ignore: beginnings of names.
        rename: a regular expression and what its matches become, as in ``re.sub``.
    """
    state = {key: value for key, value in checkpoint.state.items() if not key.startswith(ignore)}
    if rename is not None:
        state = {re.sub(*rename, key): value for key, value in state.items()}
    return replace(checkpoint, state=state)


def load_into(model: nn.Module, name: str, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a model, which errors call ``name``, in place; on an error it is as it was.

    Raises:
        WeightsError: names, shapes or types that differ from the model's, or values that are not finite.
    """
    expected = model.state_dict()
    given = checkpoint.state
    misfit = f"{checkpoint.name} does not fit {name}"
    missing = [key for key in expected if key not in given and not key.endswith(_OPTIONAL)]
    unexpected = [key for key in given if key not in expected and not key.endswith(_OPTIONAL)]
    if missing or unexpected:
        parts = [f"lacks {_few(missing)}"] if missing else []
        parts += [f"has unknown {_few(unexpected)}"] if unexpected else []
        raise WeightsError(f"{misfit}: it {' and '.join(parts)}", hint=_what_fits(checkpoint))
    shared = [key for key in expected if key in given]
    if wrong := [key for key in shared if given[key].shape != expected[key].shape]:
        key, more = wrong[0], f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{misfit}: {key} is {list(given[key].shape)} in the file and {list(expected[key].shape)} "
            f"in the model{more}",
            hint=_what_fits(checkpoint),
        )
    for key in shared:
        value = given[key]
        if value.layout != torch.strided or value.is_floating_point() != expected[key].is_floating_point():
            raise WeightsError(
                f"{misfit}: {key} is {str(value.dtype).removeprefix('torch.')} in the file and "
                f"{str(expected[key].dtype).removeprefix('torch.')} in the model",
                hint="pass weights in floating point; edgecnn quantizes them itself",
            )
        # In the model's type: a float64 value can be finite and still too large for float32.
        if not torch.isfinite(value.to(expected[key].dtype)).all():
            raise WeightsError(
                f"{checkpoint.name} cannot be used: {key} holds NaN or infinity",
                hint="pass a checkpoint from before the training diverged",
            )
    model.load_state_dict({**expected, **{key: given[key] for key in shared}})


def _read_safetensors(path: Path, data: bytes) -> object:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file: {one_line(error)}", hint=_FORMATS
        ) from error


def _read_pickle(path: Path, data: bytes) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded: object = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        # torch raises whatever a damaged file provokes, and names a refused global only in its message.
        if refused := re.search(r"\bGLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path} is refused: loading it would run {refused[1]}",
                hint="save the state dict alone: torch.save(model.state_dict(), FILE)",
            ) from error
        if "TorchScript" in str(error):
            reason = "it is a TorchScript archive"
        elif "weights_only" in str(error):
            # torch's own words advise to load the file without that protection.
            reason = "it does not consist of tensors"
        else:
            reason = one_line(error)
        raise WeightsError(f"{path} is damaged or no weights file: {reason}", hint=_FORMATS) from error
    return loaded


def _what_fits(checkpoint: Checkpoint) -> str:
    """A hint that names the zoo model which the file does fit, if there is one."""
    given = {key: value.shape for key, value in checkpoint.state.items() if not key.endswith(_OPTIONAL)}
    for entry in list_models():
        for width in _WIDTHS:
            with torch.device("meta"):
                shapes = _shapes(build(make_spec(entry.name, width)))
            if shapes.keys() != given.keys():
                break
            # Every family begins with its first convolution and ends with its last dense layer's bias.
            first, last = given[next(iter(shapes))], given[list(shapes)[-1]]
            if len(first) != 4 or len(last) != 1:
                break
            spec = replace(make_spec(entry.name, width), in_channels=first[1], classes=last[0])
            with torch.device("meta"):
                shapes = _shapes(build(spec))
            if shapes == given:
                return f"the file fits {entry.name} with --width {width:g} --classes {spec.classes}"
    return "pass weights of this very model, with the names of its state dict"


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items() if not key.endswith(_OPTIONAL)}


def _few(keys: list[str]) -> str:
    return f"{len(keys)} tensor{'s' * (len(keys) > 1)} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
