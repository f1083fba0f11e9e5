"""``edgecnn zoo``."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgecnn.cli.console import json_option, print_json, print_table
from edgecnn.zoo import list_models
from edgecnn.zoo.published import PUBLISHED


@click.command(short_help="List the networks.")
@json_option
def zoo(as_json: bool) -> None:
    """List the networks, at width 1.0 and their own resolution.

    --width and --resolution of `edgecnn export` give their relatives.
    """
    published = {entry.spec.name: entry for entry in PUBLISHED}
    if as_json:
        documents = []
        for entry in list_models():
            weights = published.get(entry.name)
            documents.append(
                asdict(entry)
                | {
                    "weights": weights.description if weights else None,
                    "top1_percent": weights.top1_percent if weights else None,
                }
            )
        print_json(documents)
        return
    rows = []
    for entry in list_models():
        weights = published.get(entry.name)
        rows.append(
            [
                entry.name + (f" ({', '.join(entry.aliases)})" if entry.aliases else ""),
                f"{entry.params:,}",
                f"{entry.macs / 1e6:,.2f}",
                str(entry.resolution),
                str(entry.classes),
                f"ImageNet, top-1 {weights.top1_percent:g} %" if weights else "--weights random or FILE",
            ]
        )
    print_table(["name", "parameters", "M MACs", "pixels", "classes", "weights"], rows)
