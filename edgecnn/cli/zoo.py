"""``edgecnn zoo``."""

from __future__ import annotations

import re
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import click

from edgecnn.cli.console import json_option, print_json, print_table
from edgecnn.errors import ConfigError
from edgecnn.target import did_you_mean
from edgecnn.zoo import Entry, list_models
from edgecnn.zoo.shipped import shipped_for

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}


class _Amount(click.ParamType[float]):
    """A number with an optional K, M or G behind it."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([kmg]?)", str(value).strip().lower())
        if found is None:
            raise ConfigError(f"'{value}' is no amount", hint="as in 300M, 1.5G or 4200000")
        return float(found[1]) * _UNITS[found[2]]


@click.command(short_help="List the networks.")
@click.argument("pattern", default="*")
@click.option("--max-macs", type=_Amount(), metavar="AMOUNT", help="At most so many multiply-accumulates.")
@click.option("--max-params", type=_Amount(), metavar="AMOUNT", help="At most so many parameters.")
@json_option
def zoo(pattern: str, max_macs: float | None, max_params: float | None, as_json: bool) -> None:
    """List the networks whose name fits PATTERN, at width 1.0 and their own resolution.

    --width and --resolution of `edgecnn export` give their relatives. The top-1 accuracy is what its source
    published; the source says on which data.

    \b
    edgecnn zoo
    edgecnn zoo 'mobile*' --max-macs 300M
    edgecnn zoo --max-params 5M --json
    """
    found = [entry for entry in list_models() if _fits(entry, pattern)]
    if not found:
        hint = did_you_mean(pattern.strip("*?").lower(), [entry.name for entry in list_models()])
        raise ConfigError(f"no network fits '{pattern}'", hint=hint)
    found = [
        entry
        for entry in found
        if (max_macs is None or entry.macs <= max_macs) and (max_params is None or entry.params <= max_params)
    ]
    if as_json:
        print_json([_document(entry) for entry in found])
        return
    print_table(
        ["name", "parameters", "M MACs", "pixels", "top-1 %", "published by", "weights"],
        [_row(entry) for entry in found],
    )


def _fits(entry: Entry, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern.lower()) for name in (entry.name, *entry.aliases, entry.family))


def _row(entry: Entry) -> list[str]:
    return [
        entry.name + (f" ({', '.join(entry.aliases)})" if entry.aliases else ""),
        f"{entry.params:,}",
        f"{entry.macs / 1e6:,.2f}",
        str(entry.resolution),
        "" if entry.top1_percent is None else f"{entry.top1_percent:g}",
        entry.top1_source or "",
        ", ".join(_weights(entry)),
    ]


def _weights(entry: Entry) -> list[str]:
    """What ``--weights`` takes beside a file, with the widths where it is not the network's own."""
    shipped = [
        name if widths == ("1.0",) else f"{name} (width {', '.join(widths)})"
        for name, widths in shipped_for(entry.name).items()
    ]
    return [*(["imagenet"] if entry.weights else []), *shipped]


def _document(entry: Entry) -> dict[str, Any]:
    weights = entry.weights
    return asdict(entry) | {
        "weights": None
        if weights is None
        else {
            "description": weights.description,
            "file": weights.file.name,
            "sha256": weights.file.sha256,
            "licence": weights.licence,
        }
    }
