"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from edgecnn.target import PRECISIONS, shipped_targets_dir
from edgecnn.zoo import list_models


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names and short names of the zoo."""
    names = [name for entry in list_models() for name in (entry.name, *entry.aliases)]
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def complete_target(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the shipped targets, or a file of the user's own."""
    names = sorted(path.stem for path in shipped_targets_dir().glob("*.toml"))
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which network: precision, width, resolution, weights, calibration."""
    for option in reversed(
        (
            click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
                         help="fp16 stores weights in half precision; int8 quantises weights and activations."),
            click.option("--width", type=float, metavar="FACTOR", help="Multiplier on the channel counts."),
            click.option("--resolution", type=int, metavar="PIXELS", help="Side of the square input."),
            click.option("--weights", default="imagenet", show_default=True, metavar="imagenet|random|FILE",
                         help="Published weights, none, or a .pth, .pt or .safetensors checkpoint."),
            click.option("--calibration", type=click.Path(path_type=Path), metavar="DIR",
                         help="Images that decide int8 ranges.  [default: photographs in the package]"),
        )
    ):  # fmt: skip
        function = option(function)
    return function
