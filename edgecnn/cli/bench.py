"""``edgecnn bench``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecnn.cli.console import json_option, print_json, progress_bar
from edgecnn.cli.parameters import complete_model, complete_target, model_options
from edgecnn.errors import ConfigError
from edgecnn.zoo import resolve

if TYPE_CHECKING:
    from edgecnn.measurement import Comparison, Measurement
    from edgecnn.progress import Progress


@click.command(short_help="Measure the latency of a bundle or a network.")
@click.argument("subject", metavar="BUNDLE|MODEL", shell_complete=complete_model)
@click.option("--target", shell_complete=complete_target, metavar="NAME|FILE.toml",
              help="Where MODEL runs; a BUNDLE knows its own.")  # fmt: skip
@model_options
@click.option("--against", type=click.Path(path_type=Path), metavar="BUNDLE",
              help="Time both in turns, and print the ratio with its interval.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of one inference.")
@click.option("--min-time", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True, metavar="SECONDS",
              help="Timed runs take at least this long.")  # fmt: skip
@click.option("--min-runs", type=click.IntRange(1, 1_000_000), default=50, show_default=True,
              help="And there are at least so many.")  # fmt: skip
@json_option
def bench(
    subject: str,
    target: str | None,
    precision: str,
    width: float | None,
    resolution: int | None,
    weights: str,
    calibration: Path | None,
    against: Path | None,
    threads: int,
    min_time: float,
    min_runs: int,
    as_json: bool,
) -> None:
    """Measure the latency of a bundle, or of a network exported for the occasion.

    The network runs in a process of its own, is warmed up until it is steady, and every sample is kept
    (--json prints them). A result that cannot be relied on says so.

    \b
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8 --against mobilenet_v2-1.0-224-tflite-fp32
    edgecnn bench mobilenet --target openvino --precision int8 --threads 2
    """
    from edgecnn import benchmark

    limits = {"threads": threads, "min_time_s": min_time, "min_runs": min_runs}
    with tempfile.TemporaryDirectory(prefix="edgecnn-bench-") as folder, progress_bar() as progress:
        bundle = Path(subject)
        if bundle.is_dir():
            _refuse_model_options(subject)
        else:
            bundle = _export(subject, target, precision, width, resolution, weights, calibration, folder, progress)
        if against is None:
            measurement = benchmark.bench(bundle, progress=progress, **limits)  # type: ignore[arg-type]
            other = comparison = None
        else:
            other, measurement, comparison = benchmark.compare(bundle, against, progress=progress, **limits)  # type: ignore[arg-type]
    if as_json:
        document = {"measurement": _document(measurement)}
        if other is not None and comparison is not None:
            document |= {"against": _document(other), "comparison": comparison.to_json()}
        print_json(document)
        return
    _print_measurement(measurement)
    if other is not None and comparison is not None:
        _print_measurement(other)
        _print_comparison(comparison)


def _refuse_model_options(bundle: str) -> None:
    context = click.get_current_context()
    for name in ("target", "precision", "width", "resolution", "weights", "calibration"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"{bundle} is a bundle, which has its own {name}", hint=f"leave --{name} out")


def _export(
    model: str,
    target: str | None,
    precision: str,
    width: float | None,
    resolution: int | None,
    weights: str,
    calibration: Path | None,
    folder: str,
    progress: Progress,
) -> Path:
    from edgecnn import pipeline

    if "/" in model:
        raise ConfigError(f"there is no bundle {model}", hint="make one with `edgecnn export`")
    name = resolve(model).name
    if target is None:
        raise ConfigError(f"where shall {name} run?", hint="add --target; `edgecnn targets` lists them")
    [artifact] = pipeline.export(
        name,
        [target],
        precision=precision,
        width=width,
        resolution=resolution,
        weights=weights,
        calibration=calibration,
        output=Path(folder),
        measure=False,
        progress=progress,
    )
    return artifact.path


def _document(measurement: Measurement) -> dict[str, object]:
    computed = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "spread", "drift", "p50_interval_ms", "gmacs_per_s",
                "steady", "reason")  # fmt: skip
    return asdict(measurement) | {name: getattr(measurement, name) for name in computed}


def _print_measurement(measurement: Measurement) -> None:
    title = f"{measurement.variant} {measurement.target} {measurement.precision}"
    click.secho(title, bold=True)
    runs = f"{len(measurement.samples_ms)} runs"
    if measurement.steady:
        low, high = measurement.p50_interval_ms or (measurement.p50_ms, measurement.p50_ms)
        click.echo(f"  latency   p50 {measurement.p50_ms:.3f} ms (95 % interval {low:.3f} to {high:.3f}), "
                   f"p90 {measurement.p90_ms:.3f}, p99 {measurement.p99_ms:.3f}; {runs}")  # fmt: skip
    else:
        click.echo(f"  latency   about {measurement.p50_ms:.2g} ms, but {measurement.reason}")
    if measurement.macs is not None and measurement.steady:
        click.echo(f"  rate      {measurement.gmacs_per_s:.0f} GMAC/s for {measurement.macs / 1e6:.1f} M MACs "
                   f"({2 * measurement.macs / 1e6:.1f} MFLOPs)")  # fmt: skip
    click.echo(f"  start     load {measurement.load_ms:.1f} ms, first inference {measurement.first_ms:.2f} ms")
    if measurement.peak_memory_bytes is not None:
        before = measurement.memory_before_bytes or 0
        click.echo(f"  memory    peak {measurement.peak_memory_bytes / 1e6:.0f} MB, "
                   f"{(measurement.peak_memory_bytes - before) / 1e6:.0f} MB of it for the model")  # fmt: skip
    load = "unknown" if measurement.load_before is None else f"{measurement.load_before:.1f}"
    click.echo(f"  machine   {measurement.cpu_model or measurement.cpu_arch}, {measurement.threads} of "
               f"{measurement.cpu_count} cores, load {load}; {measurement.runtime} {measurement.runtime_version}")  # fmt: skip


def _print_comparison(comparison: Comparison) -> None:
    click.echo(
        f"{comparison.variant_b} {comparison.target_b} {comparison.precision_b} takes {comparison.ratio:.3f} times as "
        f"long as {comparison.variant_a} {comparison.target_a} {comparison.precision_a} "
        f"(95 % interval {comparison.ratio_low:.3f} to {comparison.ratio_high:.3f}, {comparison.pairs} turns)"
        + ("" if comparison.differs else "; no difference that two runs of one model could not show")
    )
