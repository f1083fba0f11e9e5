"""Raspberry Pis of 64 and 32 bits as far as software can tell: setup and measurements over a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecnn import benchmark, pipeline
from edgecnn.devices.ssh import SshDevice
from edgecnn.errors import MissingDependency
from tests.devices.emulated import emulate
from tests.devices.sshd import Board, needs_sshd, running

pytestmark = [needs_sshd, pytest.mark.network]

# An emulated process that has to end may take its time.
SOON_S = 30.0


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with running(tmp_path / "board") as it:
        monkeypatch.setenv("PATH", it.client_path)
        yield it


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [artifact] = pipeline.export(
        "lenet5", ["tflite"], weights="random", precision="int8", measure=False,
        output=tmp_path_factory.mktemp("bundle"),
    )  # fmt: skip
    return artifact.path


@pytest.mark.parametrize(
    ("architecture", "machine", "bits"), [("arm64", "aarch64", 64), ("armhf", "armv7l", 32)]
)
def test_a_runtime_is_brought_there_and_computes_what_the_graph_says(
    architecture: str, machine: str, bits: int, board: Board, bundle: Path
) -> None:
    emulate(board, architecture)
    device = SshDevice(board.address)
    before = device.probe()
    assert before.about["cpu_arch"] == machine
    assert before.runtimes["tflite"] is None
    with pytest.raises(MissingDependency) as caught:
        benchmark.bench(bundle, device=device)
    assert f"edgecnn devices ssh:{board.address} --setup tflite" in str(caught.value.hint)
    device.setup("tflite")
    version = device.probe().runtimes["tflite"]
    assert version is not None
    # The older runtime is the only one for 32 bits.
    assert (version == "2.14.0") == (bits == 32)
    measured = benchmark.bench(bundle, device=device, min_time_s=0.1, min_runs=3, max_time_s=5)
    assert measured.cpu_arch == machine
    assert measured.runtime_version == version
    assert measured.check is not None
    assert measured.check["stage"] == f"int8 artifact on {device.name}"
    assert measured.check["images"] == 15
    assert board.left_after(SOON_S) == []
