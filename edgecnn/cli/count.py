"""``edgecnn count``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edgecnn.cli.console import json_option, print_json, progress_bar


@click.command(short_help="Count the instructions of an inference on an Arm core.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--cpu", required=True, metavar="cortex-a72|cortex-a76", help="The core that is emulated.")
@json_option
def count(bundle: Path, cpu: str, as_json: bool) -> None:
    """Count the instructions of one inference on an Arm core that QEMU emulates, so that no board is needed.

    The count repeats to 1e-4 however busy the machine is, so that a change can be held against it. It is no
    time: a core takes longer for some instructions than for others, and waits for memory.

    \b
    edgecnn count mobilenet_v2-1.0-224-tflite-int8 --cpu cortex-a72
    """
    from edgecnn.count.count import count as count_instructions

    with progress_bar() as progress:
        counted = count_instructions(bundle, cpu, progress)
    computed = {name: getattr(counted, name) for name in ("instructions", "instructions_per_mac", "spread")}
    if as_json:
        print_json(asdict(counted) | computed)
        return
    c = counted
    click.secho(f"{c.variant} {c.target} {c.precision}", bold=True)
    per_mac = "" if c.instructions_per_mac is None else f", {c.instructions_per_mac:.3f} per MAC"
    click.echo(f"  {c.cpu}    {c.instructions / 1e6:,.3f} M instructions per inference{per_mac}")
    click.echo(f"  spread        {c.spread:.1e} over {len(c.runs)} inferences")
    click.echo(f"  with          {c.runtime}, Python {c.python}, glibc {c.libc}, QEMU {c.qemu}")
