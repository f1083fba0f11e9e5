"""What every benchmark records beside its figures, and where that goes."""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from peers.environments import default_work

from edgecnn.agent import host

RESULTS = Path(__file__).with_name("results")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--work``, described by a module's first line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=default_work(), metavar="DIR", help="cache folder [default: %(default)s]"
    )
    return parser


def say(text: str) -> None:
    """One line of progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, system, Python, and the load at this moment."""
    return {
        **host.facts(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "load_before": host.snapshot()["load"],
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def read(name: str) -> dict[str, Any]:
    """``results/NAME.json`` as an earlier run wrote it; empty where there is none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def write(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/NAME.json``, lists of numbers on one line."""
    text = json.dumps(result, indent=1, allow_nan=False)
    flat = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found.group().split()), text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(flat + "\n", encoding="utf-8")
    return path
