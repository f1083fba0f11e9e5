"""``edgecnn eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli.console import json_option, print_json, progress_bar
from edgecnn.cli.parameters import (
    check_request,
    complete_model,
    complete_target,
    precision_options,
    shape_options,
    weights_options,
)
from edgecnn.cli.subject import is_bundle, refuse_model_options
from edgecnn.errors import ConfigError
from edgecnn.scratch import scratch
from edgecnn.source.request import make_request

if TYPE_CHECKING:
    from edgecnn.accuracy.baseline import Baseline
    from edgecnn.accuracy.interval import Share
    from edgecnn.accuracy.values import Accuracy, Confusion

# Of the pairs of classes between which images changed; --json has them all.
_SHOWN = 8


@click.command(name="eval", short_help="Measure the accuracy of a bundle or a network.")
@click.argument("subject", metavar="BUNDLE|MODEL", shell_complete=complete_model)
@click.option("--data", metavar="SET", help="Images with their classes.  [required]")
@click.option("--against", type=click.Path(path_type=Path, file_okay=False), metavar="BUNDLE",
              help="The fp32 bundle to compare with.  [default: the network is made again]")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="COUNT",
              help="Judge on so many of the images, drawn at random, always the same.")  # fmt: skip
@click.option("--target", shell_complete=complete_target, metavar="NAME|FILE.toml",
              help="Where MODEL runs; a BUNDLE knows its own.  "
                   "[default: the fp32 graph in ONNX Runtime]")  # fmt: skip
@precision_options
@shape_options
@weights_options
@json_option
def evaluate(
    subject: str,
    data: str | None,
    against: Path | None,
    limit: int | None,
    target: str | None,
    precision: str,
    calibration: str | None,
    as_json: bool,
    **source: Any,
) -> None:
    """Measure how often a bundle is right, on the runtime it was made for, with 95 % intervals.

    An fp16 or int8 bundle is compared with its fp32 network: agreement, SQNR, and the classes that changed.
    MODEL is exported for the occasion where --target says for what; without it the network itself is judged,
    in fp32 in ONNX Runtime.

    SET is a folder with a folder of images for each class, a CSV file of image and class, or a named set;
    :train or :test behind it takes that part. Images that int8 was calibrated on are refused. What is
    evaluated stays in the cache folder: an interrupted run goes on where it was.

    \b
    edgecnn eval mobilenet_v2-1.0-224-tflite-int8 --data imagenet70
    edgecnn eval mobilenet_v2-1.0-224-tflite-int8 --data photos/:test --json
    edgecnn eval resnet20 --data cifar10 --target openvino --precision int8
    edgecnn eval my_net.onnx --preprocess unit --data list.csv
    """
    if data is None:
        raise ConfigError(
            f"on which images shall {subject} be judged?",
            hint="add --data: a folder of class folders, a CSV file of image and class, or a named set",
        )
    made = is_bundle(subject)
    if made:
        refuse_model_options(subject, source)
    elif target is not None:
        check_request(subject, [target], precision, source)
    else:
        make_request(subject, **source)
        given = {"--precision": precision != "fp32", "--calibration": calibration, "--against": against}
        for option in (name for name, value in given.items() if value):
            raise ConfigError(f"{option} needs a target", hint="add --target; `edgecnn targets` lists them")
    with scratch("eval") as folder, progress_bar() as progress:
        progress("loading the runtimes", 0, None)
        from edgecnn.accuracy import evaluate as library

        images = library.opened(data, limit, progress)
        if made:
            accuracy = library.evaluate(subject, images, against=against, progress=progress)
        elif target is None:
            accuracy = library.evaluate_float(subject, images, progress=progress, **source)
        else:
            from edgecnn import pipeline

            [artifact] = pipeline.export(
                subject,
                [target],
                precision=precision,
                **source,
                calibration=calibration,
                output=Path(folder),
                measure=False,
                progress=progress,
            )
            accuracy = library.evaluate(artifact.path, images, against=against, progress=progress)
    if accuracy.baseline is not None:
        _warn(accuracy.baseline)
    if as_json:
        print_json(accuracy.to_json())
    else:
        _print(accuracy)


def _print(accuracy: Accuracy) -> None:
    a = accuracy
    click.secho(f"{a.network} on {a.data}, {a.images:,} images", bold=True)
    _line("top-1", _share(a.answers.top1))
    if a.answers.top5 is not None:
        _line("top-5", _share(a.answers.top5))
    if a.difference is not None:
        d = a.difference
        low, high = d.drop_interval_points
        _line("fp32", f"top-1 {_share(d.expected.top1)}")
        _line("drop", f"{d.drop_points:.2f} points (95 % interval {low:.2f} to {high:.2f})")
        _line("agreement", f"{_share(d.agreement)} get the class of {d.expected.network}")
        _line("SQNR", f"{d.sqnr_db:.1f} dB")
    if a.published_percent is not None:
        at = f" at {a.published_resolution} pixels" if a.published_resolution else ""
        _line("stated", f"top-1 {a.published_percent:.4g} %{at}")
    for number, entry in enumerate(a.confusion[:_SHOWN]):
        _line("changed" if not number else "", _describe(entry))
    if len(a.confusion) > _SHOWN:
        _line("", f"and {len(a.confusion) - _SHOWN} more pairs of classes; --json names every image")
    for note in (*filter(None, [a.too_few]), *a.notes):
        _line("note", note)


def _warn(baseline: Baseline) -> None:
    b = baseline
    low, high = b.top1.interval
    click.secho(
        f"WARNING: {b.network} is right on {100 * b.top1.value:.1f} % of the images ({100 * low:.1f} to "
        f"{100 * high:.1f}), far below the stated {b.published_percent:.4g} %.",
        fg="red",
        bold=True,
        err=True,
    )
    if b.cause is not None:
        click.secho(
            f"Likely cause: with {b.cause.change} it is right on {100 * b.cause.top1.value:.1f} % of "
            f"{b.cause.top1.images} images; as it is, on {100 * b.sample.value:.1f} %.",
            fg="red",
            err=True,
        )
        return
    click.echo(
        f"None of the usual causes: {len(b.trials)} other preparations were tried, none is clearly better. "
        "Are the images of the kind that the figure was measured on?",
        err=True,
    )


def _describe(entry: Confusion) -> str:
    moved = f"{entry.images} from {entry.expected} to {entry.got}"
    if not entry.lost and not entry.gained:
        return moved
    counts = [(entry.lost, "right before"), (entry.gained, "right now")]
    return f"{moved} ({', '.join(f'{count} {what}' for count, what in counts if count)})"


def _share(share: Share) -> str:
    low, high = share.interval
    return (
        f"{100 * share.value:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}), "
        f"{share.hits:,} of {share.images:,}"
    )


def _line(title: str, text: str) -> None:
    click.echo(f"  {title.ljust(10)}{text}")
