"""Writes docs/commands.md from the commands' own help. ``--check`` fails where the file is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from edgecnn.cli import cli

_PAGE = Path(__file__).with_suffix(".md")


def page() -> str:
    """The page as it should be."""
    parts = ["# Commands\n\nThe output of `--help`, written by `python docs/commands.py`.\n", _help()]
    parts += [f"## {name}\n\n{_help(name)}" for name in sorted(cli.commands)]
    return "\n".join(parts)


def _help(*command: str) -> str:
    result = CliRunner().invoke(cli, [*command, "--help"], prog_name="edgecnn", terminal_width=100)
    return f"```\n{result.output}```\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not _PAGE.exists() or _PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{_PAGE.name} is stale: run `python docs/commands.py`")
    else:
        _PAGE.write_text(page(), encoding="utf-8")
