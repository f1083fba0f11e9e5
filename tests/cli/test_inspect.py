"""``edgecnn inspect``: what it prints of small networks."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from edgecnn.cost.convention import CONVENTIONS


def test_lenet_for_people(run: Any) -> None:
    ended = run("inspect", "lenet5")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("model         lenet5-1.0-32, input 1x1x32x32")
    assert lines[1].endswith(CONVENTIONS["macs"].sentence)
    assert lines[2] == "parameters    61,706"
    assert "416,520, and 12,812 other operations" in lines[3]
    [row] = [line for line in lines if "features.3/Conv" in line and "Conv " in line]
    assert re.search(r" Conv +5x5 /1 +16x10x10 +2,416 +3\.9 +240,000 +57\.6 ", row)
    [total] = [line for line in lines if line.lstrip().startswith("total")]
    assert re.search(r" 61,706 +416,520 +12,812 ", total)
    assert "folded" not in ended.out


def test_repeated_blocks_are_folded_and_told(run: Any) -> None:
    out = run("inspect", "mobilenet_v1", "--resolution", 64).out
    assert "4,231,976 trained; 4,221,032 deployed, batch norm folded" in out
    assert "30 layers in 22 rows: 8 are folded" in out
    first, second = (line for line in out.splitlines() if line.startswith(("x5 {", "   }")))
    assert "features.13.0/Conv" in first
    assert "91 to 219" in first
    assert "features.14.0/Conv" in second
    assert "features.15.0" not in out


def test_parts_that_only_training_uses(run: Any) -> None:
    out = run("inspect", "inception_v3", "--width", 0.1, "--resolution", 75).out
    assert "batch norm folded, parts that only training uses left out" in out


@pytest.mark.parametrize("name", CONVENTIONS)
def test_one_convention_at_a_time(run: Any, name: str) -> None:
    ended = run("inspect", "lenet5", "--convention", name)
    total = {"macs": "416,520", "flops": "845,852", "lecture": "422,824"}
    assert total[name] in ended.out
    assert not [other for other in total if other != name and total[other] in ended.out]
    document = json.loads(run("inspect", "lenet5", "--convention", name, "--json").out)
    assert document[CONVENTIONS[name].key] == int(total[name].replace(",", ""))


def test_json_and_csv(run: Any) -> None:
    document = json.loads(run("inspect", "lenet5", "--json").out)
    assert (document["model"], document["params"], document["trained_params"]) == (
        "lenet5-1.0-32",
        61_706,
        61_706,
    )
    rows = list(csv.DictReader(io.StringIO(run("inspect", "lenet5", "--csv").out)))
    assert [row["name"] for row in rows] == [layer["name"] for layer in document["layers"]]
    assert sum(int(row["params"]) for row in rows) == 61_706
    run("inspect", "lenet5", "--csv", "--json").refused(2, "--json and --csv cannot both be", "leave one")


def test_a_narrow_terminal_loses_columns_and_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes rich take a pipe for a terminal
    monkeypatch.setenv("COLUMNS", "110")
    out = re.sub(r"\x1b\[[0-9;]*m", "", run("inspect", "mobilenet_v2", "--resolution", 64).out)
    head = next(line for line in out.splitlines() if "operator" in line)
    assert len(head) <= 110
    assert "MACs" in head
    assert "jump" not in head
    assert "Left out for want of width: jump, centre, weights KB" in out


def test_a_request_that_cannot_be(run: Any) -> None:
    run("inspect", "lenet6").refused(2, "unknown model 'lenet6'", "lenet5")
    run("inspect", "lenet5", "--convention", "gops").refused(2, "'gops' is not one of", "inspect --help")
