"""``edgecnn bench`` of several bundles, and what is left where it ends early."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--min-time", "0.05", "--min-runs", "5")


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def pair(bundles: dict[str, Path]) -> list[Path]:
    return [bundles["tflite"], bundles["onnxruntime"]]


def test_each_result_is_printed_and_kept(run: Any, pair: list[Path], here: Path) -> None:
    ended = run("bench", *pair, *QUICK, "-o", "results.jsonl")
    assert ended.code == 0, ended.err
    assert "lenet5-1.0-32 tflite fp32\n" in ended.out
    assert "lenet5-1.0-32 onnxruntime fp32\n" in ended.out
    assert "2 results are in results.jsonl" in ended.out
    assert [line["measurement"]["target"] for line in results(here / "results.jsonl")] == [
        "tflite", "onnxruntime",
    ]  # fmt: skip
    assert [path.name for path in here.iterdir()] == ["results.jsonl"]


def test_without_a_file_nothing_is_kept(run: Any, pair: list[Path], here: Path) -> None:
    ended = run("bench", *pair, *QUICK, "--json")
    measured = json.loads(ended.out)["measurements"]
    assert [one["target"] for one in measured] == ["tflite", "onnxruntime"]
    assert all(len(one["samples_ms"]) >= 5 for one in measured)
    assert not list(here.iterdir())


def test_a_killed_series_goes_on(command: list[str], pair: list[Path], here: Path) -> None:
    asked = [*command, "bench", *map(str, pair), "--min-time", "1.5", "-o", "results.jsonl"]
    file = here / "results.jsonl"
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL) as first:
        until = time.monotonic() + 60
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.02)
        first.kill()
    [kept] = results(file)
    assert kept["measurement"]["target"] == "tflite"
    again = subprocess.run([*asked, "--resume"], capture_output=True, text=True, check=True)
    assert "2 results are in results.jsonl" in again.stdout
    assert results(file)[0] == kept
    assert results(file)[1]["measurement"]["target"] == "onnxruntime"


def test_another_question_is_measured_anew(run: Any, pair: list[Path], here: Path) -> None:
    once = ("bench", pair[0], *QUICK, "-o", "results.jsonl", "--resume")
    assert run(*once).code == 0
    [first] = results(here / "results.jsonl")
    assert run(*once).code == 0
    assert results(here / "results.jsonl") == [first]
    assert run(*once, "--threads", "2").code == 0
    assert [line["asked"]["threads"] for line in results(here / "results.jsonl")] == [1, 2]


def test_a_quick_one_ends_in_time(run: Any, pair: list[Path], here: Path) -> None:
    asked = ("bench", pair[0], "--quick", "--min-time", "0.05", "--min-runs", "1000000", "--json")
    began = time.monotonic()
    measured = json.loads(run(*asked).out)["measurement"]
    assert time.monotonic() - began < 20
    assert len(measured["samples_ms"]) < 1_000_000
    assert sum(measured["samples_ms"]) < 8500


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("-o", "there.jsonl"), "there.jsonl is there already", "--resume"),
        (("-o", "there.jsonl", "--resume"), "line 1 of there.jsonl is no whole measurement", "-o"),
        (("--resume",), "goes on with a file", "-o FILE.jsonl"),
        (("-o", "new.jsonl", "--soak", "1m"), "--soak is not for a series", "leave -o out"),
        (("-o", "new.jsonl", "--target", "tflite"), "has its own target", "leave --target out"),
        (("--quick", "--min-time", "9"), "--quick ends within ten seconds", "--min-time"),
        (("--quick", "--soak", "1m"), "--quick", "--soak"),
    ],
)
def test_what_cannot_be_a_series(
    options: tuple[str, ...], message: str, hint: str, run: Any, bundles: dict[str, Path], here: Path
) -> None:
    (here / "there.jsonl").write_text("a diary\n")
    run("bench", bundles["tflite"], *options).refused(2, message, hint)
    assert [path.name for path in here.iterdir()] == ["there.jsonl"]


def test_a_network_is_no_part_of_a_series(run: Any, bundles: dict[str, Path], here: Path) -> None:
    run("bench", bundles["tflite"], "lenet5").refused(2, "lenet5 is no bundle", "edgecnn export")


def test_what_was_measured_before_an_error_is_kept(run: Any, pair: list[Path], here: Path) -> None:
    kept = here / "results.jsonl"
    assert run("bench", pair[0], *QUICK, "-o", "results.jsonl").code == 0
    before = kept.read_text()
    ended = run("bench", *pair, *QUICK, "--cores", "99", "-o", "results.jsonl", "--resume")
    assert ended.code != 0
    assert "the same command with --resume goes on" in ended.err
    assert kept.read_text() == before
