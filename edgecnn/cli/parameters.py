"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from edgecnn.errors import ConfigError
from edgecnn.source.recipes import RECIPES
from edgecnn.source.request import Request, make_request
from edgecnn.target import PRECISIONS, did_you_mean, load_target, shipped_targets_dir
from edgecnn.zoo import list_models


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names and short names of the zoo, or a file."""
    names = [name for entry in list_models() for name in (entry.name, *entry.aliases)]
    found = [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the shipped targets, or a file of the user's own."""
    names = sorted(path.stem for path in shipped_targets_dir().glob("*.toml"))
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_weights(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The words that stand for weights, or a checkpoint file."""
    found = [
        CompletionItem(word) for word in ("imagenet", "cifar10", "random") if word.startswith(incomplete)
    ]
    return found or [CompletionItem(incomplete, type="file")]


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The named input preparations, or a file."""
    found = [CompletionItem(word) for word in RECIPES if word.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


class _Precision(click.Choice[str]):
    """A precision; a mistyped one hears the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in PRECISIONS:
            hint = did_you_mean(str(value), list(PRECISIONS))
            raise ConfigError(f"unknown precision '{value}'", hint=hint)
        return str(value)


def shape_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which network, under the names of ``make_request``'s arguments."""
    return _with(
        function,
        click.option("--width", type=float, metavar="FACTOR", help="Multiplier on the channel counts."),
        click.option("--resolution", type=int, metavar="PIXELS", help="Side of the square input."),
        click.option("--classes", type=int, metavar="COUNT", help="Number of outputs."),
        click.option("--in-channels", type=int, metavar="COUNT", help="Channels of the input."),
        click.option("--input-shape", metavar="1,C,H,W", help="Input of a network that is not the zoo's."),
    )  # fmt: skip


def weights_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what it was trained to, under the names of ``make_request``'s arguments."""
    return _with(
        function,
        click.option("--weights", metavar="imagenet|cifar10|random|FILE", shell_complete=complete_weights,
                     help="Published weights, ours for CIFAR-10, none, or a .pth, .pt or .safetensors "
                          "checkpoint.  [default: the first of them that there are, or the file's own]"),
        click.option("--preprocess", metavar="imagenet|signed|unit|raw|FILE", shell_complete=complete_recipe,
                     help="How images become inputs, where the weights do not say: ImageNet's mean and "
                          "deviation, -1 to 1, 0 to 1, 0 to 255, or a bundle's preprocess.json."),
    )  # fmt: skip


def precision_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say in which numbers it computes, and what decides their ranges."""
    return _with(
        function,
        click.option("--precision", type=_Precision(PRECISIONS), default="fp32", show_default=True,
                     help="fp16 stores weights in half precision; int8 quantises them and activations."),
        click.option("--calibration", metavar="DIR|SET",
                     help="Images that decide int8 ranges: a folder, or some of a labelled set, such as "
                          "cifar10:train.  [default: photographs in the package]"),
    )  # fmt: skip


def accuracy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what int8 must hold, under the names of ``pipeline.export``'s arguments."""
    return _with(
        function,
        click.option("--data", metavar="SET",
                     help="Labelled images that int8 is judged on: a folder of class folders, a CSV file of "
                          "image and class, or a named set."),
        click.option("--max-drop", type=float, metavar="POINTS",
                     help="Points of top-1 that int8 may lose on --data; layers return to float until it "
                          "holds."),
        click.option("--min-agreement", type=float, metavar="SHARE",
                     help="Share of --data that keeps its class in int8, such as 0.98."),
        click.option("--search", is_flag=True,
                     help="Try ways to quantise, and take the best on --data and on the first target."),
        click.option("--time-budget", "time_budget_s", type=float, metavar="SECONDS",
                     help="Time for these; the best so far is kept.  [default: 600]"),
        click.option("--portable", is_flag=True,
                     help="Coarser weights where x86 CPUs without VNNI would compute something else."),
    )  # fmt: skip


def check_request(model: str, targets: Sequence[str], precision: str, source: dict[str, Any]) -> Request:
    """Refuse what cannot be before the seconds that importing torch takes; the library checks it all again.

    Raises:
        ConfigError: an unknown model or target, no target, or a variant or precision that cannot be.
    """
    request = make_request(model, **source)
    if not targets:
        raise ConfigError(f"where shall {model} run?", hint="add --target; `edgecnn targets` lists them")
    for target in map(load_target, targets):
        target.check_precision(precision)
    return request


def _with(function: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The device, and how it is reached."""
    for option in reversed((
        click.option("--device", metavar="ADDRESS",
                     help="local, ssh:[USER@]HOST[:PORT], adb[:SERIAL], browser; else the target's."),
        click.option("--cores", metavar="big|little|0-3", help="Pin it to these cores of the device."),
        click.option("--benchmark-binary", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                     help="adb: Google's benchmark_model for the phone, where it is not there yet."),
        click.option("--usb", is_flag=True, help="browser: a phone on USB opens the page through adb."),
        click.option("--https", is_flag=True, help="browser: with a certificate made for the occasion."),
        click.option("--host", metavar="ADDRESS", help="browser: listen here, and not on loopback alone."),
        click.option("--port", type=click.IntRange(0, 65535), default=0, help="browser: of the page."),
    )):  # fmt: skip
        command = option(command)
    return command
