"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from edgecnn.errors import ConfigError
from edgecnn.target import PRECISIONS, did_you_mean, load_target, shipped_targets_dir
from edgecnn.zoo import Entry, list_models, make_spec, resolve


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names and short names of the zoo."""
    names = [name for entry in list_models() for name in (entry.name, *entry.aliases)]
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def complete_subject(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the zoo, or the folder of a bundle."""
    return complete_model(ctx, param, incomplete) or [CompletionItem(incomplete, type="dir")]


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the shipped targets, or a file of the user's own."""
    names = sorted(path.stem for path in shipped_targets_dir().glob("*.toml"))
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_weights(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The two words, or a checkpoint file."""
    found = [CompletionItem(word) for word in ("imagenet", "random") if word.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


class _Precision(click.Choice[str]):
    """A precision; a mistyped one hears the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in PRECISIONS:
            hint = did_you_mean(str(value), list(PRECISIONS))
            raise ConfigError(f"unknown precision '{value}'", hint=hint)
        return str(value)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which network: precision, width, resolution, weights, calibration."""
    for option in reversed(
        (
            click.option("--precision", type=_Precision(PRECISIONS), default="fp32", show_default=True,
                         help="fp16 stores weights in half precision; int8 quantises them and activations."),
            click.option("--width", type=float, metavar="FACTOR", help="Multiplier on the channel counts."),
            click.option("--resolution", type=int, metavar="PIXELS", help="Side of the square input."),
            click.option("--weights", default="imagenet", show_default=True, metavar="imagenet|random|FILE",
                         shell_complete=complete_weights,
                         help="Published weights, none, or a .pth, .pt or .safetensors checkpoint."),
            click.option("--calibration", type=click.Path(path_type=Path), metavar="DIR",
                         help="Images that decide int8 ranges.  [default: photographs in the package]"),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def check_request(
    model: str, targets: Sequence[str], precision: str, width: float | None, resolution: int | None
) -> Entry:
    """Refuse what cannot be before the seconds that importing torch takes; the library checks it all again.

    Returns:
        The network.

    Raises:
        ConfigError: an unknown model or target, no target, or a variant or precision that cannot be.
    """
    entry = resolve(model)
    make_spec(model, width=width, resolution=resolution)
    if not targets:
        raise ConfigError(f"where shall {entry.name} run?", hint="add --target; `edgecnn targets` lists them")
    for target in map(load_target, targets):
        target.check_precision(precision)
    return entry
