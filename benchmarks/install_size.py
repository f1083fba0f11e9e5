"""How much disk ``pip install .`` takes, in total and by package.

    python benchmarks/install_size.py

A clean virtual environment, this checkout, no extras unless asked for. pip chooses the builds by its own
configuration, and torch's decides the figure: the CPU build is meant, which pip chooses on Linux where
its configuration lists the CPU builds (docs/install.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import table
from peers.environments import CHECKOUT, create, install
from results import argument_parser, machine, say, write

# Runs in the environment that is measured. A RECORD lists the compiled bytecode that pip made too.
_LIST = """
import importlib.metadata, json, os
sizes = {}
for dist in importlib.metadata.distributions():
    files = {os.path.realpath(file.locate()) for file in dist.files or ()}
    size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    sizes[dist.metadata["Name"]] = [dist.version, size]
print(json.dumps(sizes))
"""


def main() -> None:
    """Install, measure, write ``results/install_size.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--extras", default="", help="with commas, such as openvino [default: none]")
    arguments = parser.parse_args()

    folder = arguments.work.resolve() / "environments" / "install-size"
    python = create(folder)
    empty_bytes = _size(folder)
    requirement = f"{CHECKOUT}[{arguments.extras}]" if arguments.extras else str(CHECKOUT)
    say(f"installing {'edgecnn' + requirement.removeprefix(str(CHECKOUT))}")
    install(python, [requirement])
    listed = json.loads(subprocess.run([str(python), "-c", _LIST], stdout=subprocess.PIPE, check=True).stdout)
    total_bytes = _size(folder)
    result: dict[str, Any] = {
        "machine": machine(),
        "extras": arguments.extras,
        "empty_bytes": empty_bytes,
        "total_bytes": total_bytes,
        "packages": {
            name: {"version": version, "size_bytes": size}
            for name, (version, size) in sorted(listed.items(), key=lambda item: -item[1][1])
        },
    }
    path = write("install_size", result)
    print(table.install_size(result))
    say(f"{total_bytes / 1e9:.2f} GB; all packages in {path}")


def _size(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
