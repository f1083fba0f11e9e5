"""How ``bench`` shows what was measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecnn.measurement import Comparison, Measurement


def document(measurement: Measurement) -> dict[str, object]:
    """All of it for ``--json``, with what follows from it."""
    computed = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "spread", "drift", "p50_interval_ms", "gmacs_per_s",
                "steady", "reason")  # fmt: skip
    return asdict(measurement) | {name: getattr(measurement, name) for name in computed}


def print_measurement(measurement: Measurement) -> None:
    """A block of lines."""
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


def print_comparison(comparison: Comparison) -> None:
    """One line."""
    c = comparison
    verdict = "" if c.differs else "; no difference that two runs of one model could not show"
    click.echo(
        f"{c.variant_b} {c.target_b} {c.precision_b} takes {c.ratio:.3f} times as long as "
        f"{c.variant_a} {c.target_a} {c.precision_a} "
        f"(95 % interval {c.ratio_low:.3f} to {c.ratio_high:.3f}, {c.pairs} turns){verdict}"
    )
