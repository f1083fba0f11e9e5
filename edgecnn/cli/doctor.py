"""``edgecnn doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgecnn.cli.console import json_option, print_json, print_table


@click.command(short_help="Say what is usable on this machine.")
@json_option
def doctor(as_json: bool) -> None:
    """Say which runtimes, devices and tools are usable here, and what is missing for the others."""
    from edgecnn.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    rows = [[("ok" if f.usable else "--"), f.kind, f.name, f.detail] for f in findings]
    print_table(["", "kind", "name", "detail"], rows)
