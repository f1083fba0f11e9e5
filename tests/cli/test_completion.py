"""Shell completion: what each shell is told, and bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MOBILENETS = [
    "mobilenet", "mobilenet_v1", "mobilenet_v1_cifar", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small",
]  # fmt: skip


def asked(shell: str, words: list[str]) -> dict[str, str]:
    """What the shell's script passes on when tab is pressed after the last word."""
    variables = {"_EDGECNN_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words)}
    return variables | {"COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1)}


def offered(shell: str, out: str) -> list[str]:
    """The words in the answer: zsh gets three lines a word, fish one, bash one."""
    lines = out.splitlines()
    if shell == "zsh":
        return lines[1::3]
    return [line.split(",", 1)[1].split("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["edgecnn", "ex"], ["export"]),
        (["edgecnn", "export", "mob"], MOBILENETS),
        (["edgecnn", "export", "lenet5", "--target", "tf"], ["tflite"]),
        (["edgecnn", "export", "lenet5", "--precision", "fp"], ["fp32", "fp16"]),
        (["edgecnn", "export", "lenet5", "--weights", "ran"], ["random"]),
        (["edgecnn", "export", "lenet5", "--forc"], ["--force"]),
        (["edgecnn", "bench", "resnet18"], ["resnet18"]),
        (["edgecnn", "bench", "lenet5", "--target", "open"], ["openvino"]),
    ],
)
def test_what_is_offered(
    shell: str, words: list[str], expected: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in asked(shell, words).items():
        monkeypatch.setenv(name, value)
    ended = run()
    assert (ended.code, ended.err) == (0, "")
    assert sorted(offered(shell, ended.out)) == sorted(expected)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts(shell: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("_EDGECNN_COMPLETE", f"{shell}_source")
    ended = run()
    assert ended.code == 0
    assert f"_EDGECNN_COMPLETE={shell}_complete" in ended.out
    if found := shutil.which(shell):
        (tmp_path / "script").write_text(ended.out)
        subprocess.run([found, "-n", tmp_path / "script"], check=True)


def test_in_bash() -> None:
    bash, script = shutil.which("bash"), Path(sys.executable).with_name("edgecnn")
    if not bash:
        pytest.skip("no bash")
    if not script.exists():
        pytest.skip(f"no edgecnn command beside {sys.executable}")
    session = (
        'set -e; eval "$(_EDGECNN_COMPLETE=bash_source edgecnn)"; complete -p edgecnn >/dev/null; '
        "COMP_WORDS=(edgecnn export mobilenet_v3); COMP_CWORD=2; "
        '_edgecnn_completion edgecnn; echo "${COMPREPLY[@]}"'
    )
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [bash, "-c", session], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if "older than 4.4" in ended.stderr:
        pytest.skip("this bash is older than 4.4")
    assert ended.stdout.split() == MOBILENETS[-2:], ended.stderr
