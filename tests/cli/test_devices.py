"""``edgecnn devices``, and devices of ``edgecnn bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_this_machine_is_listed(run: Any) -> None:
    shown = run("devices").out
    assert shown.splitlines()[0] == "local"
    assert "tflite" in shown
    [local, *_] = json.loads(run("devices", "local", "--json").out)
    assert local["device"] == "local"
    assert local["runtimes"]["onnxruntime"]


def test_bad_requests(run: Any, bundles: dict[str, Path]) -> None:
    run("devices", "--setup", "tflite").refused(2, "--setup needs a device", "ssh:USER@HOST")
    run("devices", "usb:1").refused(2, "unknown device 'usb:1'", "ssh:[USER@]HOST")
    run("devices", "local", "--setup", "tflite").refused(2, "nothing can be brought to local", "by hand")
    run("devices", "ssh:nobody@127.0.0.1:1").refused(1, "cannot be reached", "sshd")
    bundle = bundles["tflite"]
    run("bench", bundle, "--usb").refused(2, "--usb is for browser", "leave --usb out")
    run("bench", bundle, "--cores", "fast").refused(2, "names no cores", "big, little")
    run("bench", bundle, "--soak", "1x").refused(2, "no duration such as", "--help")
    run("bench", bundle, "--soak", "1s").refused(2, "too short for a soak", "30m")
    run("bench", bundle, "--plot", "x.svg").refused(2, "--plot draws a soak", "--soak")
    run("bench", bundle, "--soak", "5s", "--against", bundle).refused(2, "two in turns", "--against")
    ended = run("bench", bundle, "--min-time", "0.1", "--power", "no.csv")
    assert ended.code == 2
    assert "no.csv cannot be read" in ended.err


def test_reachable_and_unreachable_ones_are_listed_together(run: Any) -> None:
    found = json.loads(run("devices", "local", "ssh:nobody@127.0.0.1:1", "--json").out)
    assert [entry["device"] for entry in found] == ["local", "ssh:nobody@127.0.0.1:1"]
    assert "cannot be reached" in found[1]["unreachable"]
