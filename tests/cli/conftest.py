"""The command line, run in this process for speed or in one of its own where that matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgecnn.cli
import edgecnn.cli.interrupt
from edgecnn import pipeline

COMMAND = [sys.executable, "-c", "from edgecnn.cli import main; main()"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def refused(self, code: int, message: str, hint: str) -> None:
        """One error line and one hint line, nothing on standard output, and no traceback."""
        assert self.code == code, self
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line.startswith(("error:", "hint:"))]
        assert len(lines) == 2, self.err
        assert "Traceback" not in self.err
        assert message in lines[0], lines[0]
        assert hint in lines[1], lines[1]


Run = Callable[..., Outcome]


@pytest.fixture
def command() -> list[str]:
    """What starts it, for tests that start it themselves."""
    return COMMAND


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["edgecnn", *map(str, arguments)])
        capfd.readouterr()
        code = edgecnn.cli.run()
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """The command line in a process of its own."""

    def process(*arguments: object, cwd: Path = tmp_path, **environment: str) -> Outcome:
        command = [*COMMAND, *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    return process


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small bundle of each shipped target."""
    names = ["tflite", "onnxruntime"]
    output = tmp_path_factory.mktemp("bundles")
    made = pipeline.export("lenet5", names, weights="random", output=output, measure=False)
    return {name: artifact.path for name, artifact in zip(names, made, strict=True)}
