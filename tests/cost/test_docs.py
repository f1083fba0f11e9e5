"""docs/cost.md and the results behind its tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgecnn.zoo import resolve

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_tables_are_what_the_results_say() -> None:
    command = [sys.executable, BENCHMARKS / "cost_conventions.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_results_are_of_these_networks() -> None:
    result = json.loads((BENCHMARKS / "results" / "cost_conventions.json").read_text(encoding="utf-8"))
    for name, found in result["networks"].items():
        assert found["edgecnn"]["macs"] == resolve(name).macs
        assert found["edgecnn"]["params_trained"] == found["torchinfo params"] == resolve(name).params
