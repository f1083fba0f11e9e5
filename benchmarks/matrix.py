"""Every network of the zoo on every target in fp32 and int8: passed, refused or crashed, size, latency.

    python benchmarks/matrix.py
    python benchmarks/matrix.py 'resnet*' --target tflite --precision int8

Each network is exported as ``edgecnn export`` does it, every check and the quick measurement included, in a
process of its own. ``results/matrix.json`` keeps a line a cell; a run replaces the cells that it measured.
Networks whose weights come as a package have them, the others are random with batch norm settled.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import table
from results import RESULTS, argument_parser, machine, say, write

from edgecnn.errors import EdgeCNNError
from edgecnn.fetch.published import PackagePlace
from edgecnn.zoo import Entry, list_models

TARGETS = ("tflite", "openvino", "onnxruntime")
PRECISIONS = ("fp32", "int8")
_TIMEOUT_S = 1800


def main() -> None:
    """Export what was asked for, write ``results/matrix.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="of names of networks [default: all]")
    parser.add_argument("--target", choices=TARGETS, action="append", help="[default: all]")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="[default: both]")
    parser.add_argument("--missing", action="store_true", help="only cells that have not passed yet")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "PRECISION", "TARGETS"), help="in this process")
    arguments = parser.parse_args()
    if arguments.one:
        _export(*arguments.one)
        return
    cells = _known()
    for entry in sorted(list_models(), key=lambda entry: entry.macs):
        if not fnmatchcase(entry.name, arguments.pattern):
            continue
        for precision in arguments.precision or PRECISIONS:
            targets = [
                target
                for target in arguments.target or TARGETS
                if not (arguments.missing and _passed(cells.get((entry.name, precision, target))))
            ]
            for cell in _cells(entry, precision, targets):
                cells[entry.name, precision, cell["target"]] = cell
                say(f"{entry.name} {precision} {cell['target']}: {cell['status']} {cell.get('reason', '')}")
            _save(cells)
    path = _save(cells)
    print(table.matrix(json.loads(path.read_text(encoding="utf-8"))))


def _cells(entry: Entry, precision: str, targets: list[str]) -> list[dict[str, Any]]:
    """One process for all targets, which share the quantisation; where it fails, one for each."""
    if not targets:
        return []
    made = _in_a_process(entry, precision, targets)
    if made is None and len(targets) > 1:
        return [cell for target in targets for cell in _cells(entry, precision, [target])]
    return made or []


def _in_a_process(entry: Entry, precision: str, targets: list[str]) -> list[dict[str, Any]] | None:
    command = [sys.executable, __file__, "--one", entry.name, precision, ",".join(targets)]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=False)
        reason = "" if done.returncode >= 0 else signal.Signals(-done.returncode).name
    except subprocess.TimeoutExpired:
        done, reason = None, f"not done after {_TIMEOUT_S} s"
    seconds = round(time.perf_counter() - start, 1)
    common = {"model": entry.name, "precision": precision}
    if done is not None and done.returncode == 0:
        document = json.loads(done.stdout)
        if "cells" in document:
            return [{**common, **cell, "seconds": seconds} for cell in document["cells"]]
        if len(targets) == 1:
            refused = {"target": targets[0], "status": "refused", "reason": document["refused"]}
            return [{**common, **refused, "seconds": seconds}]
        return None
    if len(targets) > 1:
        return None
    why = reason or (f"exit status {done.returncode}" if done is not None else "")
    return [{**common, "target": targets[0], "status": "crashed", "reason": why, "seconds": seconds}]


def _export(model: str, precision: str, targets: str) -> None:
    """Export to the targets, and print their cells, or why edgecnn refused, as one JSON document."""
    from edgecnn import pipeline
    from edgecnn.zoo import resolve

    weights = resolve(model).weights
    packaged = weights is not None and any(isinstance(p, PackagePlace) for p in weights.file.places)
    chosen = "imagenet" if packaged else "random"
    try:
        with tempfile.TemporaryDirectory(prefix="edgecnn-matrix-") as folder:
            artifacts = pipeline.export(
                model, targets.split(","), precision=precision, weights=chosen, output=Path(folder)
            )
            cells = [_cell(artifact, chosen) for artifact in artifacts]
    except EdgeCNNError as error:
        print(json.dumps({"refused": str(error)}))
        return
    print(json.dumps({"cells": cells}))


def _cell(artifact: Any, weights: str) -> dict[str, Any]:
    manifest, measured = artifact.manifest, artifact.manifest["measured"]
    *graph_checks, last = manifest["checks"]
    quality = graph_checks[-1] if artifact.precision == "int8" else None
    return {
        "target": artifact.target,
        "status": "passed",
        "weights": weights,
        "size_bytes": sum(path.stat().st_size for path in (artifact.model, *artifact.companions)),
        "p50_ms": measured["p50_ms"],
        "steady": measured["steady"],
        "metric": last["metric"],
        "value": last["value"],
        "limit": last["limit"],
        "against": last["against"],
        "sqnr_db": None if quality is None else quality["value"],
        "macs": manifest["macs"],
        "params": manifest["params"],
    }


def _known() -> dict[tuple[str, str, str], dict[str, Any]]:
    path = RESULTS / "matrix.json"
    if not path.exists():
        return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {(cell["model"], cell["precision"], cell["target"]): cell for cell in cells}


def _passed(cell: dict[str, Any] | None) -> bool:
    return cell is not None and cell["status"] == "passed"


def _save(cells: dict[tuple[str, str, str], dict[str, Any]]) -> Path:
    order = {entry.name: index for index, entry in enumerate(list_models())}
    kept = [cell for key, cell in sorted(cells.items(), key=lambda item: (order.get(item[0][0], -1), item[0]))
            if key[0] in order]  # fmt: skip
    return write("matrix", {"machine": machine(), "cells": kept})


if __name__ == "__main__":
    main()
