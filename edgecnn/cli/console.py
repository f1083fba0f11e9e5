"""What all commands print alike: progress on standard error, JSON and tables on standard output."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from edgecnn.cli.interrupt import raise_if_asked, waits
from edgecnn.progress import Progress

_LINE_EVERY_S = 10.0


def load_torch(progress: Progress) -> None:
    """Import torch, which takes seconds, and which aborts the process where Ctrl-C comes meanwhile."""
    progress("loading torch", 0, None)
    with waits():
        importlib.import_module("torch")


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress function that draws a bar on standard error; where that is no terminal but a file or a
    pipe, a line every ten seconds.

    What libraries and a factory's own code print meanwhile goes to standard error: standard output is for
    results.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if sys.stderr.isatty():
            with _bars() as progress:
                yield progress
        else:
            yield _lines()


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    # A name in brackets is a name, not a colour.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn())
    bars = Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = bars.add_task("starting", total=None)

    def progress(description: str, done: float, total: float | None) -> None:
        raise_if_asked()
        bars.update(task, description=description, completed=done, total=total)

    with bars:
        yield progress


def _lines() -> Progress:
    began = last = time.monotonic()

    def progress(description: str, done: float, total: float | None) -> None:
        nonlocal last
        raise_if_asked()
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S:
            last = now
            share = f", {done / total:.0%}" if total else ""
            click.echo(f"{description}{share} ({now - began:.0f} s)", err=True)

    return progress


def print_json(value: Any) -> None:
    """One JSON document on standard output, in ASCII, so that any terminal and any path can have it."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def print_line(title: str, text: str) -> None:
    """A fact under its title, for people; without a title it goes on with the one above."""
    click.echo(f"{click.style(title.ljust(12), bold=True)} {text}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, for people."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    click.secho(line(header), bold=True)
    for row in rows:
        click.echo(line(row))


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
"""The ``--json`` of every command."""
