"""``edgecnn targets``."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgecnn.cli.console import json_option, print_json, print_table
from edgecnn.target import list_targets, shipped_targets_dir


@click.command(short_help="List the targets.")
@json_option
def targets(as_json: bool) -> None:
    """List the targets that come with edgecnn.

    A target is a TOML file that names its runtime, device, precisions and options. Copy one, change it, and
    pass its path to --target.
    """
    found = list_targets()
    if as_json:
        print_json([asdict(target) for target in found])
        return
    print_table(
        ["name", "runtime", "precisions", "description"],
        [[target.name, target.runtime, ", ".join(target.precisions), target.description] for target in found],
    )
    click.echo(f"\nfiles: {shipped_targets_dir()}")
