"""Rows on disk survive a kill, a full disk and a second writer; damaged ones are not believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgecnn.accuracy.record import Record
from edgecnn.errors import OutputError

NAMES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]
LOGITS = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)


def written(path: Path, numbers: list[int]) -> Record:
    record = Record(path, 10)
    for number in numbers:
        record.add(NAMES[number], LOGITS[number])
    record.write()
    return record


def known(path: Path) -> list[int]:
    """The images that a file holds; what it holds of them is as it was."""
    record = Record(path, 10)
    found = [number for number, name in enumerate(NAMES) if record.get(name) is not None]
    for number in found:
        assert np.array_equal(record[NAMES[number]], LOGITS[number])
    return found


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.rows"
    assert known(path) == []
    written(path, [0, 1])
    written(path, [4])
    assert known(path) == [0, 1, 4]


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    written(tmp_path / "a.rows", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", [1, 40, 75])
def test_a_row_cut_short_is_written_again(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "a.rows"
    written(path, [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-lost])
    assert known(path) == [0, 1]
    written(path, [2, 3])
    assert known(path) == [0, 1, 2, 3]


def test_a_damaged_row_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    written(path, [0, 1, 2])
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)
    assert known(path) == [0, 2]
    path.write_bytes(bytes(len(stored)))  # what a crash may leave of blocks that were never written
    assert known(path) == []


def test_two_writers(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    one, other = Record(path, 10), Record(path, 10)
    for record, numbers in ((one, [0, 1]), (other, [1, 2]), (one, [3])):
        for number in numbers:
            record.add(NAMES[number], LOGITS[number])
        record.write()
    assert known(path) == [0, 1, 2, 3]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be read") as caught:
        Record(tmp_path / "file" / "a.rows", 10)
    assert "EDGECNN_CACHE_DIR" in str(caught.value.hint)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    record = Record(tmp_path / "a.rows", 10)
    (tmp_path / "a.rows").symlink_to("/dev/full")
    record.add(NAMES[0], LOGITS[0])
    with pytest.raises(OutputError, match="No space left"):
        record.write()
