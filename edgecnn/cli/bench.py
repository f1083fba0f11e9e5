"""``edgecnn bench``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli.console import json_option, load_torch, print_json, progress_bar
from edgecnn.cli.measured import document, print_comparison, print_measurement
from edgecnn.cli.parameters import (
    check_request,
    complete_model,
    complete_target,
    device_options,
    precision_options,
    shape_options,
    weights_options,
)
from edgecnn.cli.series import measure_series
from edgecnn.cli.subject import is_bundle, refuse_model_options
from edgecnn.errors import ConfigError
from edgecnn.scratch import scratch
from edgecnn.whole import write_whole

if TYPE_CHECKING:
    from edgecnn.measurement import Measurement
    from edgecnn.power import Energy
    from edgecnn.soak import Soak


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds from text such as ``90``, ``90s``, ``30m`` or ``1h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click asks for it."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if found is None:
            self.fail(f"'{value}' is no duration such as 90s, 30m or 1h", param, ctx)
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@click.command(short_help="Measure the latency of bundles or a network.")
@click.argument("subjects", nargs=-1, required=True, metavar="BUNDLE...|MODEL", shell_complete=complete_model)
@click.option("--target", shell_complete=complete_target, metavar="NAME|FILE.toml",
              help="Where MODEL runs; a BUNDLE knows its own.")  # fmt: skip
@precision_options
@shape_options
@weights_options
@device_options
@click.option("--against", type=click.Path(path_type=Path, file_okay=False), metavar="BUNDLE",
              help="Time both in turns, and print the ratio with its interval.")  # fmt: skip
@click.option("--soak", type=Duration(), metavar="30m",
              help="Run without a pause for so long; latency over time and temperature.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg",
              help="Where --soak draws it.")  # fmt: skip
@click.option("--power", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv",
              help="Log of a USB power meter that covers the run, written while it lasts.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Threads of one inference.")  # fmt: skip
@click.option("--min-time", "min_time_s", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True,
              metavar="SECONDS", help="Timed runs take at least this long.")  # fmt: skip
@click.option("--min-runs", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="COUNT",
              help="And there are at least so many.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Ten seconds with the warm-up, however few runs that gives.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.jsonl",
              help="Keep each result there, as a line of JSON.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Measure what is not in -o yet.")
@json_option
def bench(
    subjects: tuple[str, ...],
    target: str | None,
    precision: str,
    calibration: str | None,
    device: str | None,
    cores: str | None,
    benchmark_binary: Path | None,
    usb: bool,
    https: bool,
    host: str | None,
    port: int,
    against: Path | None,
    soak: float | None,
    plot: Path | None,
    power: Path | None,
    threads: int,
    min_time_s: float,
    min_runs: int,
    quick: bool,
    output: Path | None,
    resume: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Measure the latency of bundles, or of a network exported for the occasion.

    The network runs in a process of its own, is warmed up until it is steady, and every sample is kept
    (--json prints them). A result that cannot be relied on says so. What another device computes is held
    against the graph that the bundle was made from. Several bundles are measured one after another; with -o,
    a series that was interrupted goes on with --resume.

    \b
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8 --against mobilenet_v2-1.0-224-tflite-fp32
    edgecnn bench mobilenet --target openvino --precision int8 --threads 2
    edgecnn bench mobilenet --target tflite --precision int8 --device ssh:pi@raspberrypi.local
    edgecnn bench mobilenet_v2-*-tflite-int8 --device ssh:pi@raspberrypi.local -o pi.jsonl --resume
    edgecnn bench mobilenet --target raspberry-pi-5 --precision int8 --soak 30m --plot soak.svg
    edgecnn bench mobilenet --target phone-browser --precision int8 --usb
    """
    from edgecnn import benchmark
    from edgecnn.bundle.write import read
    from edgecnn.devices.address import Settings, open_device
    from edgecnn.target import load_target

    limits: dict[str, Any] = {"min_time_s": min_time_s, "min_runs": min_runs}
    if quick:
        limits["max_time_s"] = benchmark.QUICK_S
    _check_together(against, soak, plot, power)
    if quick and (soak is not None or min_time_s > benchmark.QUICK_S):
        longer = "--soak" if soak is not None else f"--min-time {min_time_s:g}"
        raise ConfigError(
            f"--quick ends within ten seconds, {longer} does not", hint=f"leave --quick or {longer} out"
        )
    benchmark.check_limits(**limits)
    if resume and output is None:
        raise ConfigError("--resume goes on with a file of results", hint="name it with -o FILE.jsonl")
    settings = Settings(benchmark_binary, usb, https, host, port, announce=_announce)
    how: dict[str, Any] = {"threads": threads, "cores": cores}
    if len(subjects) > 1 or output is not None:
        bundles = [_of_series(subject) for subject in subjects]
        refuse_model_options(subjects[0], source)
        for option, value in {"--against": against, "--soak": soak, "--power": power}.items():
            if value is not None:
                raise ConfigError(f"{option} is not for a series", hint="leave -o out, and name one bundle")
        measure_series(bundles, device, settings, output, resume=resume, as_json=as_json, **how, **limits)
        return
    if against is not None:
        read(against)
    [subject] = subjects
    made = is_bundle(subject)
    if made:
        refuse_model_options(subject, source)
        address = read(Path(subject)).device
    else:
        targets = [] if target is None else [target]
        request = check_request(subject, targets, precision, source)
        address = load_target(targets[0]).device
    how["device"] = open_device(device or address, settings)
    other = comparison = None
    with scratch("bench") as folder, progress_bar() as progress:
        if made:
            bundle = Path(subject)
        else:
            load_torch(progress)
            from edgecnn import pipeline

            [artifact] = pipeline.export(
                subject,
                targets,
                precision=precision,
                **source,
                calibration=calibration,
                output=Path(folder),
                measure=False,
                progress=progress,
            )
            bundle = artifact.path
        how["progress"] = progress
        if soak is not None:
            soaked = benchmark.soak(bundle, soak, **how)
        elif against is None:
            measurement = benchmark.bench(bundle, **how, **limits)
        else:
            other, measurement, comparison = benchmark.compare(bundle, against, **how, **limits)
    if soak is not None:
        _print_soak(soaked, plot, as_json)
        return
    try:
        energy = _energy(measurement, power)
    except ConfigError:
        # What was measured stays true.
        print_json({"measurement": document(measurement)}) if as_json else print_measurement(measurement)
        raise
    if as_json:
        shown: dict[str, object] = {"measurement": document(measurement)}
        if energy is not None:
            shown["energy"] = energy.to_json()
        if other is not None and comparison is not None:
            shown |= {"against": document(other), "comparison": comparison.to_json()}
        print_json(shown)
        return
    if not made and request.kind == "zoo" and request.name != subject:
        click.echo(f"{subject} is {request.name}")
    print_measurement(measurement)
    if energy is not None:
        click.echo(f"  energy    {energy.sentence}; taken for granted: {'; '.join(energy.assumed)}")
    if other is not None and comparison is not None:
        print_measurement(other)
        print_comparison(comparison)


def _of_series(subject: str) -> Path:
    if not is_bundle(subject):
        raise ConfigError(
            f"{subject} is no bundle, and a series is of bundles",
            hint="make it one with `edgecnn export`, or leave -o out and name it alone",
        )
    return Path(subject)


def _check_together(against: Path | None, soak: float | None, plot: Path | None, power: Path | None) -> None:
    if soak is not None and against is not None:
        raise ConfigError("--soak measures one bundle, not two in turns", hint="leave --against out")
    if plot is not None and soak is None:
        raise ConfigError("--plot draws a soak", hint="add --soak 30m")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise ConfigError(f"--plot draws SVG, not '{plot.suffix}'", hint=f"--plot {plot.stem}.svg")
    if power is not None and (soak is not None or against is not None):
        raise ConfigError("--power is for one plain measurement", hint="leave --soak and --against out")


def _announce(line: str) -> None:
    click.echo(line, err=True)


def _energy(measurement: Measurement, power: Path | None) -> Energy | None:
    """By the meter's log, else by the device's own sensor where it has one."""
    from edgecnn.power import metered, sensed
    from edgecnn.power_log import read_power

    return sensed(measurement) if power is None else metered(measurement, read_power(power))


def _print_soak(soaked: Soak, plot: Path | None, as_json: bool) -> None:
    if plot is not None:
        write_whole(
            plot, soaked.to_svg().encode(), if_full="make room", if_not="choose another file for --plot"
        )
    if as_json:
        print_json({"soak": soaked.to_json()})
        return
    print_measurement(soaked.measurement)
    click.echo(f"  soak      {soaked.sentence}")
    if soaked.hottest_c is not None:
        click.echo(f"  heat      {soaked.hottest_c:.0f} degrees at most")
    if plot is not None:
        click.echo(f"  plot      {plot}")
