"""``edgecnn bench``."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli.console import json_option, print_json, progress_bar
from edgecnn.cli.parameters import (
    check_request,
    complete_model,
    complete_target,
    device_options,
    precision_options,
    shape_options,
    weights_options,
)
from edgecnn.cli.subject import is_bundle, refuse_model_options
from edgecnn.errors import ConfigError
from edgecnn.scratch import scratch
from edgecnn.whole import write_whole

if TYPE_CHECKING:
    from edgecnn.measurement import Comparison, Measurement
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


@click.command(short_help="Measure the latency of a bundle or a network.")
@click.argument("subject", metavar="BUNDLE|MODEL", shell_complete=complete_model)
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
@click.option("--min-time", type=click.FloatRange(0.05, 3600), default=2.0, show_default=True,
              metavar="SECONDS", help="Timed runs take at least this long.")  # fmt: skip
@click.option("--min-runs", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="COUNT",
              help="And there are at least so many.")  # fmt: skip
@json_option
def bench(
    subject: str,
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
    min_time: float,
    min_runs: int,
    as_json: bool,
    **source: Any,
) -> None:
    """Measure the latency of a bundle, or of a network exported for the occasion.

    The network runs in a process of its own, is warmed up until it is steady, and every sample is kept
    (--json prints them). A result that cannot be relied on says so. What another device computes is held
    against the graph that the bundle was made from.

    \b
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8 --against mobilenet_v2-1.0-224-tflite-fp32
    edgecnn bench mobilenet --target openvino --precision int8 --threads 2
    edgecnn bench mobilenet --target tflite --precision int8 --device ssh:pi@raspberrypi.local
    edgecnn bench mobilenet --target raspberry-pi-5 --precision int8 --soak 30m --plot soak.svg
    edgecnn bench mobilenet --target phone-browser --precision int8 --usb
    """
    from edgecnn import benchmark
    from edgecnn.bundle.write import read
    from edgecnn.devices.address import Settings, open_device
    from edgecnn.target import load_target

    benchmark.check_limits(min_time, min_runs)
    _check_together(against, soak, plot, power)
    if against is not None:
        read(against)
    made = is_bundle(subject)
    if made:
        refuse_model_options(subject, source)
        address = read(Path(subject)).device
    else:
        targets = [] if target is None else [target]
        request = check_request(subject, targets, precision, source)
        address = load_target(targets[0]).device
    settings = Settings(benchmark_binary, usb, https, host, port, announce=_announce)
    place = open_device(device or address, settings)
    other = comparison = None
    with scratch("bench") as folder, progress_bar() as progress:
        if made:
            bundle = Path(subject)
        else:
            progress("loading torch", 0, None)
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
        how: dict[str, Any] = {"device": place, "threads": threads, "cores": cores, "progress": progress}
        if soak is not None:
            soaked = benchmark.soak(bundle, soak, **how)
        elif against is None:
            measurement = benchmark.bench(bundle, **how, min_time_s=min_time, min_runs=min_runs)
        else:
            other, measurement, comparison = benchmark.compare(
                bundle, against, **how, min_time_s=min_time, min_runs=min_runs
            )
    if soak is not None:
        _print_soak(soaked, plot, as_json)
        return
    try:
        energy = _energy(measurement, power)
    except ConfigError:
        # What was measured stays true.
        print_json({"measurement": _document(measurement)}) if as_json else _print_measurement(measurement)
        raise
    if as_json:
        document = {"measurement": _document(measurement)}
        if energy is not None:
            document["energy"] = energy.to_json()
        if other is not None and comparison is not None:
            document |= {"against": _document(other), "comparison": comparison.to_json()}
        print_json(document)
        return
    if not made and request.kind == "zoo" and request.name != subject:
        click.echo(f"{subject} is {request.name}")
    _print_measurement(measurement)
    if energy is not None:
        click.echo(f"  energy    {energy.sentence}; taken for granted: {'; '.join(energy.assumed)}")
    if other is not None and comparison is not None:
        _print_measurement(other)
        _print_comparison(comparison)


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
    _print_measurement(soaked.measurement)
    click.echo(f"  soak      {soaked.sentence}")
    if soaked.hottest_c is not None:
        click.echo(f"  heat      {soaked.hottest_c:.0f} degrees at most")
    if plot is not None:
        click.echo(f"  plot      {plot}")


def _document(measurement: Measurement) -> dict[str, object]:
    computed = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "spread", "drift", "p50_interval_ms", "gmacs_per_s",
                "steady", "reason")  # fmt: skip
    return asdict(measurement) | {name: getattr(measurement, name) for name in computed}


def _print_measurement(measurement: Measurement) -> None:
    from edgecnn.bundle.write import describe_check
    from edgecnn.bundle.write import describe_ms as ms

    m = measurement
    click.secho(f"{m.variant} {m.target} {m.precision}", bold=True)
    runs = f"{len(m.samples_ms)} {'blocks of runs' if 'benchmark_model' in m.options else 'runs'}"
    if m.runs is not None and m.runs > len(m.samples_ms):
        runs = f"{m.runs} runs, {len(m.samples_ms)} of them kept"
    if m.steady:
        low, high = m.p50_interval_ms or (m.p50_ms, m.p50_ms)
        click.echo(
            f"  latency   p50 {ms(m.p50_ms)} ms (95 % interval {ms(low)} to {ms(high)}), "
            f"p90 {ms(m.p90_ms)} ms, p99 {ms(m.p99_ms)} ms; {runs}"
        )
    else:
        click.echo(f"  latency   about {m.p50_ms:.2g} ms over {runs}, but {m.reason}")
    if m.macs is not None and m.steady:
        click.echo(
            f"  rate      {m.gmacs_per_s:.0f} GMAC/s for {m.macs / 1e6:,.1f} M MACs "
            f"({2 * m.macs / 1e6:,.1f} MFLOPs)"
        )
    click.echo(f"  start     load {m.load_ms:.1f} ms, first inference {ms(m.first_ms)} ms")
    if m.peak_memory_bytes is not None:
        own = (m.peak_memory_bytes - (m.memory_before_bytes or 0)) / 1e6
        click.echo(f"  memory    peak {m.peak_memory_bytes / 1e6:.0f} MB, {own:.0f} MB of it for the model")
    load = "not told" if m.load_before is None else f"{m.load_before:.1f}"
    click.echo(
        f"  machine   {m.cpu_model or m.cpu_arch or 'unknown processor'}, "
        f"{m.threads} of {m.cpu_count} cores, load {load}; {m.runtime} {m.runtime_version}"
    )
    if m.cores is not None:
        click.echo(f"  cores     pinned to {', '.join(map(str, m.cores))}")
    if m.device != "local":
        click.echo(f"  device    {m.device}")
    if m.check is not None:
        click.echo(f"  outputs   {describe_check(m.check)}")


def _print_comparison(comparison: Comparison) -> None:
    c = comparison
    verdict = "" if c.differs else "; no difference that two runs of one model could not show"
    click.echo(
        f"{c.variant_b} {c.target_b} {c.precision_b} takes {c.ratio:.3f} times as long as "
        f"{c.variant_a} {c.target_a} {c.precision_a} "
        f"(95 % interval {c.ratio_low:.3f} to {c.ratio_high:.3f}, {c.pairs} turns){verdict}"
    )
