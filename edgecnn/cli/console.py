"""What all commands print alike: progress on standard error, JSON and tables on standard output."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from edgecnn.progress import Progress, silent

_SHOWN_AFTER_S = 0.5


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress function that draws a bar on standard error, or nothing where that is no terminal.

    Work that ends within half a second never shows.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    task = bars.add_task("starting", total=None)
    begun = time.monotonic()
    shown = False

    def progress(description: str, done: float, total: float | None) -> None:
        nonlocal shown
        bars.update(task, description=description, completed=done, total=total)
        if not shown and time.monotonic() - begun > _SHOWN_AFTER_S:
            bars.start()
            shown = True

    try:
        yield progress
    finally:
        bars.stop()


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, for people."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    click.secho("  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)).rstrip(), bold=True)
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
"""The ``--json`` of every command."""
