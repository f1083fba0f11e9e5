"""Ctrl-C, a polite kill and a rude one, at any moment of an export."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgecnn.bundle.write import read
from edgecnn.cli import interrupt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

BUNDLE = "lenet5-1.0-32-tflite-fp32"
EXPORT = ["export", "lenet5", "--weights", "random", "--target", "tflite", "-o", "out", "--force"]
MOMENTS = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """An export in a folder of its own, with temporary files of its own."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    # Not ignored, whatever this process was started with.
    return subprocess.Popen(
        [*command, *EXPORT],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def duration_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long exports take that run side by side like the ones below."""
    command = [sys.executable, "-c", "from edgecnn.cli import main; main()"]
    began = time.monotonic()
    exports = [start(command, tmp_path_factory.mktemp("whole")) for _ in SIGNALS]
    for export in exports:
        assert export.wait(120) == 0
    return time.monotonic() - began


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_an_export_that_is_ended(
    moment: int, duration_s: float, command: list[str], tmp_path: Path, bundles: dict[str, Path]
) -> None:
    before = [BUNDLE] if moment % 2 else []  # --force replaces the one of every other moment
    folders = [tmp_path / number.name for number in SIGNALS]
    for folder in folders:
        for name in before:
            shutil.copytree(bundles["tflite"], folder / "out" / name)
    exports = [start(command, folder) for folder in folders]
    time.sleep(duration_s * (moment + 0.5) / MOMENTS)
    children = [child for export in exports for child in family(export)]
    for number, export in zip(SIGNALS, exports, strict=True):
        export.send_signal(number)
    for number, folder, export in zip(SIGNALS, folders, exports, strict=True):
        out, err = export.communicate(timeout=60)
        output = folder / "out"
        left = sorted(path.name for path in output.iterdir()) if output.exists() else []
        if BUNDLE in left:
            read(output / BUNDLE)
        if out:  # it was done already
            assert left == [BUNDLE]
        elif number is signal.SIGKILL:
            assert not before or BUNDLE in left or any(".replaced-" in name for name in left)
        else:
            # The very first moments are the interpreter's own.
            assert export.returncode in ((130,) if err.startswith("interrupted") else (130, -number)), err
            assert left == before
            assert bool(before) == output.exists()
            assert list((folder / "tmp").iterdir()) == []
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_what_a_killed_export_left_is_removed_by_the_next(command: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    killed = start(command, tmp_path)
    while not (output.exists() and list(output.iterdir())):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    [left] = [path.name for path in output.iterdir()]
    assert left.startswith(f".{BUNDLE}.partial-")
    after = start(command, tmp_path)
    _, err = after.communicate(timeout=120)
    assert after.returncode == 0, err
    assert [path.name for path in output.iterdir()] == [BUNDLE]
    read(output / BUNDLE)


def test_a_second_interrupt_does_not_stop_the_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_asked", [])
    interrupt.raise_if_asked()
    with pytest.raises(KeyboardInterrupt):
        interrupt._interrupt(signal.SIGINT, None)
    interrupt._interrupt(signal.SIGINT, None)
    assert interrupt.asked()
    # A library that swallowed it hears of it again at the next step.
    with pytest.raises(KeyboardInterrupt):
        interrupt.raise_if_asked()
    monkeypatch.setattr(interrupt, "_DEAF_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        interrupt._interrupt(signal.SIGINT, None)


def test_an_interrupt_exits_with_130(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn import pipeline

    def interrupted(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "export", interrupted)
    ended = run(*EXPORT)
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted; nothing half-made was left" in ended.err


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(ignored: signal.Signals) -> None:
    code = (
        "import signal, sys; from edgecnn.cli import interrupt; interrupt.install()\n"
        f"assert signal.getsignal({int(ignored)}) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGTERM) is interrupt._interrupt"
    )
    subprocess.run(
        [sys.executable, "-c", code], preexec_fn=lambda: signal.signal(ignored, signal.SIG_IGN), check=True
    )
