"""Target files, the shipped ones and the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.backends import RUNTIMES
from edgecnn.errors import ConfigError
from edgecnn.target import PRECISIONS, did_you_mean, list_targets, load_target

GOOD = """
description = "a board"
runtime = "tflite"
device = "local"
precisions = ["int8", "fp32"]
"""


def write(folder: Path, text: str, name: str = "board.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_the_shipped_targets_are_sound() -> None:
    targets = list_targets()
    assert {"tflite", "onnxruntime", "openvino"} <= {target.name for target in targets}
    for target in targets:
        assert load_target(target.name) == target
        assert target.runtime in RUNTIMES
        assert target.description
        assert "\n" not in target.description


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    target = load_target(
        write(tmp_path, GOOD + "[options]\nthreads = 2\nmode = 'fast'\nscale = 0.5\nall = true\n")
    )
    assert (target.name, target.runtime, target.precisions) == ("board", "tflite", ("int8", "fp32"))
    assert target.options == {"threads": 2, "mode": "fast", "scale": 0.5, "all": True}
    assert load_target(write(tmp_path, GOOD, "größer 2.toml")).name == "größer 2"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (GOOD + "devce = 'local'", "unknown field 'devce'", "did you mean device?"),
        (GOOD + "name = 'x'", "unknown field 'name'", ""),
        (GOOD.replace('runtime = "tflite"', ""), "the field 'runtime' is missing", "fields: description"),
        (GOOD.replace('"tflite"', "3"), "'runtime' must be a string", None),
        (GOOD.replace('"local"', '"locl"'), "unknown device 'locl'", "did you mean local?"),
        (GOOD.replace('["int8", "fp32"]', '"int8"'), "'precisions' must be a list", "one or more of fp32"),
        (GOOD.replace('["int8", "fp32"]', "[]"), "'precisions' must be a list", "one or more of fp32"),
        (GOOD.replace('"fp32"', '"int4"'), "'precisions' must be a list", "one or more of fp32"),
        (GOOD.replace('"fp32"', '["fp32"]'), "'precisions' must be a list", "one or more of fp32"),
        (GOOD + "options = 3", "'options' must be a table", None),
        (GOOD + "options = {day = 2020-01-01}", "option 'day' must be text", None),
        (GOOD + "options = {a = inf}", "option 'a' must be text", None),
        (GOOD + "options = {a = nan}", "option 'a' must be text", None),
        (GOOD + "options = {a = [1]}", "option 'a' must be text", None),
        ("description = ", "cannot be read", None),
        ("", "the field 'description' is missing", "fields: description"),
    ],
)
def test_files_that_are_wrong(text: str, message: str, hint: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_target(path)
    assert message in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint is None or hint in str(caught.value.hint)


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "raw.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_target(str(tmp_path / "raw.toml"))
    with pytest.raises(ConfigError, match="does not exist"):
        load_target(str(tmp_path / "absent.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="does not exist"):
        load_target(str(tmp_path / "folder.toml"))


def test_unknown_names_hear_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown target 'onnxruntme'") as caught:
        load_target("onnxruntme")
    assert str(caught.value.hint).startswith("did you mean onnxruntime?")
    with pytest.raises(ConfigError, match="unknown target 'zzz'") as caught:
        load_target("zzz")
    assert "known: onnxruntime, openvino, phone-browser" in str(caught.value.hint)
    with pytest.raises(ConfigError, match=r"unknown target '\.\./tflite'"):
        load_target("../tflite")


def test_did_you_mean() -> None:
    assert did_you_mean("mobilnet", ["mobilenet", "resnet18"]) == "did you mean mobilenet?"
    assert did_you_mean("zz", ["mobilenet", "resnet18"]) == "known: mobilenet, resnet18"
    assert did_you_mean("", ["a", "b"]) == "known: a, b"


def test_precisions_are_checked(tmp_path: Path) -> None:
    target = load_target(write(tmp_path, GOOD))
    for precision in target.precisions:
        target.check_precision(precision)
    with pytest.raises(ConfigError, match="'board' does not run fp16") as caught:
        target.check_precision("fp16")
    assert caught.value.hint == "it runs int8, fp32"
    with pytest.raises(ConfigError, match="unknown precision 'int'") as caught:
        target.check_precision("int")
    assert "int8" in str(caught.value.hint)
    assert PRECISIONS == ("fp32", "fp16", "int8")
