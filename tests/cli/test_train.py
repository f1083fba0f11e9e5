from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.zoo.about import about

from .conftest import Run


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of light and dark images, 30 of each."""
    folder = tmp_path_factory.mktemp("data") / "dots"
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.normal(level, 25, (32, 32)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_it_trains_and_says_what_comes_next(run: Run, dots: Path, here: Path) -> None:
    out = run("train", "lenet", "--data", dots, "--epochs", 20, "--batch", 8, "--learning-rate", 0.05)
    assert out.code == 0, out
    assert "100.00 % top-1" in out.out
    assert "12 images of dots:test" in out.out
    assert "guess" not in out.out
    line = next(line for line in out.out.splitlines() if line.startswith("next"))
    # The checkpoint says which network it holds, and how its images are prepared.
    ended = run(*line.split()[2:-1], "onnxruntime", "--json")
    assert ended.code == 0, ended
    [manifest] = json.loads(ended.out)
    assert manifest["model"]["classes"] == 2
    assert manifest["output"]["shape"] == [1, 2]
    judged = run("eval", manifest["path"], "--data", f"{dots}:test", "--json")
    assert judged.code == 0, judged
    assert json.loads(judged.out)["top1"]["share"] == 1.0


def test_a_network_that_learnt_nothing_is_said(run: Run, dots: Path, here: Path) -> None:
    out = run("train", "lenet", "--data", dots, "--epochs", 1, "--learning-rate", 1e-6)
    assert out.code == 0, out
    assert "no better than guessing" in out.out


def test_json_is_the_record(run: Run, dots: Path, here: Path) -> None:
    out = run("train", "lenet", "--data", dots, "--epochs", 1, "-o", "o", "--json")
    assert out.code == 0, out
    record = json.loads(out.out)
    assert record["path"] == "o"
    assert {key: value for key, value in record.items() if key != "path"} == json.loads(
        (here / "o" / "training.json").read_text()
    )


def test_killed_it_goes_on_from_the_last_epoch(run: Run, dots: Path, here: Path, command: list[str]) -> None:
    arguments = ["train", "lenet", "--data", str(dots), "--epochs", "60", "--batch", "8", "-o", "o"]
    state = here / "o" / "state.safetensors"
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and len(about(state).get("epochs", [])) < 2:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = about(state)["epochs"]
    assert 2 <= len(done) < 60
    out = run(*arguments, "--json")
    assert out.code == 0, out
    assert json.loads(out.out)["epochs"][: len(done)] == done
    assert not state.exists()
    assert not [name for name in os.listdir(here / "o") if name.startswith(".")]


def test_a_finished_training_stays(run: Run, dots: Path, here: Path) -> None:
    arguments = ("train", "lenet", "--data", dots, "--epochs", 1, "-o", "o")
    assert run(*arguments).code == 0
    run(*arguments).refused(2, "o holds a finished training", "--force")
    assert run(*arguments, "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("lenet", "--data", "nowhere"), 2, "there is no data set 'nowhere'", "folder of class folders"),
        (("lenett", "--data", "DOTS"), 2, "unknown model 'lenett'", "lenet"),
        (("lenet", "--data", "DOTS", "--epochs", 0), 2, "epochs cannot be 0", "from 1"),
        (("lenet", "--data", "DOTS", "--learning-rate", -1), 2, "learning rate cannot be -1", "from"),
        (("lenet", "--data", "DOTS", "--from", "imagnet"), 2, "unknown weights 'imagnet'", "pass a .pth"),
        (("lenet", "--data", "DOTS", "--freeze", 2), 2, "nothing to freeze", "--from"),
        (
            ("lenet", "--data", "DOTS", "--distill", "nowhere"),
            1,
            "there is no teacher nowhere",
            "edgecnn train",
        ),
        (("lenet",), 2, "missing option '--data'", "edgecnn train --help"),
    ],
)
def test_bad_requests(
    run: Run, dots: Path, here: Path, arguments: tuple[object, ...], code: int, message: str, hint: str
) -> None:
    given = [dots if argument == "DOTS" else argument for argument in arguments]
    run("train", *given).refused(code, message, hint)
    assert not list(here.iterdir())


def test_a_loss_that_diverges_is_one_line(run: Run, dots: Path, here: Path) -> None:
    arguments = ("--epochs", 20, "--batch", 4, "--learning-rate", 100, "--weight-decay", 10)
    run("train", "lenet", "--data", dots, *arguments).refused(1, "training diverged", "--learning-rate")
