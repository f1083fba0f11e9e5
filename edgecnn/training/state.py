"""What a training leaves on disk: a state to go on from, replaced whole, and safetensors for good."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from edgecnn.errors import WeightsError
from edgecnn.whole import write_whole
from edgecnn.zoo.about import KEY, about


def save(path: Path, tensors: Mapping[str, torch.Tensor], description: dict[str, Any]) -> None:
    """Write tensors and a description to a .safetensors file that appears whole or not at all.

    The file that was there before stays until the new one is complete.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    data = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {KEY: json.dumps(description)},
    )
    _replace(path, data)


def save_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON document that appears whole or not at all.

    Raises:
        OutputError: as for :func:`save`.
    """
    _replace(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the description of a file that :func:`save` wrote.

    Raises:
        WeightsError: a file that is damaged or that :func:`save` has not written.
    """
    try:
        return safetensors.torch.load(path.read_bytes()), about(path)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or no state of a training") from error


def _replace(path: Path, data: bytes) -> None:
    write_whole(
        path,
        data,
        if_full="make room and run the same command again: it goes on from the last epoch that was saved",
        if_not="choose another folder with -o",
    )
