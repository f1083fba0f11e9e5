from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from edgecnn.errors import OutputError, WeightsError
from edgecnn.training import state


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.safetensors"
    state.save(path, {"a": torch.arange(3.0), "b": torch.tensor(7)}, {"epoch": 2, "name": "Müller"})
    tensors, described = state.load(path)
    assert described == {"epoch": 2, "name": "Müller"}
    assert torch.equal(tensors["a"], torch.arange(3.0))
    assert tensors["b"].item() == 7


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, {"a": torch.zeros(2)}, {"epoch": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        state.save(path, {"a": torch.ones(2)}, {"epoch": 2})
    assert "last epoch" in str(caught.value.hint)
    monkeypatch.undo()
    assert state.load(path)[1] == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}x"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        state.load(path)
