"""``edgecnn train``."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgecnn.cli.console import json_option, load_torch, print_json, print_line, progress_bar
from edgecnn.cli.parameters import complete_model
from edgecnn.zoo import make_spec


@click.command(short_help="Train a network on labelled images.")
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--data",
    required=True,
    metavar="SET",
    help="A folder of class folders, a CSV of file and label, or a named set: cifar10, fashion_mnist.",
)
@click.option(
    "--epochs", type=int, metavar="COUNT", help="Passes over the images.  [default: 30, or 12 with --from]"
)
@click.option(
    "--from",
    "start",
    metavar="imagenet|cifar10|FILE",
    help="First weights; the last layer may be for other classes.  [default: random]",
)
@click.option(
    "--freeze",
    type=int,
    metavar="EPOCHS",
    help="Epochs at the start in which only the last layer learns.  [default: a third with --from]",
)
@click.option(
    "--distill",
    type=click.Path(path_type=Path),
    metavar="TEACHER",
    help="The weights.safetensors of a larger network, whose outputs this one learns too.",
)
@click.option("--width", type=float, metavar="FACTOR", help="Multiplier on the channel counts.")
@click.option("--resolution", type=int, metavar="PIXELS", help="Side of the square input.")
@click.option("--in-channels", type=int, metavar="COUNT", help="Channels of the input.")
@click.option("--batch", type=int, metavar="COUNT", help="Images a step.  [default: 128, or 32 with --from]")
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="[default: sgd, or adamw with --from]")
@click.option("--learning-rate", type=float, metavar="RATE", help="At its peak, in the last layer.")
@click.option(
    "--weight-decay", type=float, metavar="FACTOR", help="Of weights in convolutions and dense layers."
)
@click.option(
    "--label-smoothing", type=float, metavar="SHARE", help="Share of each label spread over all classes."
)
@click.option(
    "--seed", type=int, metavar="NUMBER", help="Of first weights, order and augmentation.  [default: 0]"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the result.  [default: <model>-<set> here]",
)
@click.option("--force", is_flag=True, help="Start anew, and replace what is there.")
@json_option
def train(
    model: str,
    data: str,
    epochs: int | None,
    start: str | None,
    freeze: int | None,
    distill: Path | None,
    width: float | None,
    resolution: int | None,
    in_channels: int | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    **recipe: Any,
) -> None:
    """Train MODEL, a network of the zoo, to tell the classes of a labelled set apart.

    It learns from the set's training part and is judged on the rest: for a folder, a fifth of each class.
    What is kept is the moving average of the weights. A training that was interrupted, however it ended, goes
    on when the same command is given again. A GPU is used where torch finds one.

    \b
    edgecnn train mobilenet --data photos/ --from imagenet -o mine     your own classes, in minutes
    edgecnn export mobilenet --weights mine/weights.safetensors --target tflite
    edgecnn train resnet20 --data cifar10 --epochs 40 -o resnet20      from scratch
    edgecnn train mobilenet_v1_cifar --width 0.25 --data cifar10 --distill resnet20/weights.safetensors
    """
    make_spec(model, width, resolution, None, in_channels)  # before the seconds that importing torch takes
    with progress_bar() as progress, _goes_on():
        load_torch(progress)
        from edgecnn.training.train import train as carry_out

        result = carry_out(
            model,
            data,
            epochs=epochs,
            start=start,
            freeze=freeze,
            distill=distill,
            width=width,
            resolution=resolution,
            in_channels=in_channels,
            **recipe,
            output=output,
            force=force,
            progress=progress,
        )
    if as_json:
        print_json({"path": str(result.folder), **result.record})
        return
    from edgecnn.training.loop import sparkline

    low, high = result.record["top1_interval_percent"]
    held_out = result.record["held_out"]
    curve = [epoch.top1_percent for epoch in result.epochs]
    print_line("trained", f"{result.spec.name}, {len(curve)} epochs in {result.record['seconds']:.0f} s")
    print_line("curve", f"{sparkline(curve)}  {curve[0]:.1f} to {curve[-1]:.1f} % top-1")
    print_line("accuracy", f"{result.top1_percent:.2f} % top-1 (95 % interval {low:.1f} to {high:.1f}) on "
                      f"{held_out['images']} images of {held_out['name']}")  # fmt: skip
    if low <= result.record["most_frequent_percent"]:
        guess = result.record["most_frequent_percent"]
        print_line("note", f"no better than guessing: {guess:.1f} % are of the most frequent class")
    print_line("weights", f"{result.weights}")
    print_line(
        "next",
        f"edgecnn export {result.spec.name} --weights {shlex.quote(str(result.weights))} --target tflite",
    )


@contextlib.contextmanager
def _goes_on() -> Iterator[None]:
    """Says, where the user ends it, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("the same command goes on from the last epoch that was saved", err=True)
        raise
