"""What a network said about each image, kept on disk: an interrupted evaluation goes on where it was.

A file holds one network's outputs. Rows are appended and stand for themselves: the image's fingerprint, the
outputs, and a checksum, so that a row that a kill or a full disk cut short is known and computed again, two
processes may write one file, and any set of images finds what another has computed.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecnn.errors import OutputError
from edgecnn.fetch.cache import data_dir

_SHA256_BYTES = 32
_WRITE_S = 1.0


def evaluations_dir() -> Path:
    """The folder of all records, in the cache folder."""
    return data_dir().with_name("evaluations")


class Record:
    """The outputs of one network, by the fingerprints of the images that it has seen."""

    def __init__(self, path: Path, outputs: int) -> None:
        """Read what is there.

        Args:
            path: the file; made with the first row.
            outputs: length of the network's output.

        Raises:
            OutputError: the file cannot be read.
        """
        self._path = path
        self._unwritten = bytearray()
        self._written_at = time.monotonic()
        self._row = np.dtype(
            [("image", "u1", _SHA256_BYTES), ("logits", "<f4", outputs), ("checksum", "<u4")]
        )
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            stored = b""
        except OSError as error:
            raise self._failure("read", error) from error
        rows = len(stored) // self._row.itemsize
        self._torn = len(stored) != rows * self._row.itemsize
        self._known: dict[bytes, npt.NDArray[np.float32]] = {
            row["image"].tobytes(): row["logits"]
            for row in np.frombuffer(stored, self._row, rows)
            if zlib.crc32(row.tobytes()[:-4]) == row["checksum"]
        }

    def get(self, fingerprint: str) -> npt.NDArray[np.float32] | None:
        """The outputs for an image, (outputs,), or None where it has not been seen."""
        return self._known.get(bytes.fromhex(fingerprint))

    def __getitem__(self, fingerprint: str) -> npt.NDArray[np.float32]:
        """The outputs for an image that has been seen, (outputs,)."""
        return self._known[bytes.fromhex(fingerprint)]

    def add(self, fingerprint: str, logits: npt.NDArray[np.float32]) -> None:
        """Keep the outputs for an image; they are written to the disk within a second of the next ones.

        Raises:
            OutputError: the file cannot be written; what is in it stays.
        """
        row = np.zeros((), self._row)
        row["image"] = np.frombuffer(bytes.fromhex(fingerprint), np.uint8)
        row["logits"] = logits
        row["checksum"] = zlib.crc32(row.tobytes()[:-4])
        self._known[row["image"].tobytes()] = row["logits"]
        self._unwritten += row.tobytes()
        if time.monotonic() - self._written_at > _WRITE_S:
            self.write()

    def write(self) -> None:
        """Write what was added since.

        Raises:
            OutputError: the file cannot be written; what is in it stays.
        """
        rows, self._unwritten = bytes(self._unwritten), bytearray()
        self._written_at = time.monotonic()
        if not rows:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._torn:
                size = self._path.stat().st_size
                os.truncate(self._path, size - size % self._row.itemsize)
                self._torn = False
            with self._path.open("ab", buffering=0) as file:
                if file.write(rows) != len(rows):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._failure("written", error) from error

    def _failure(self, what: str, error: OSError) -> OutputError:
        return OutputError(
            f"the record of this evaluation, {self._path}, cannot be {what}: {error.strerror}",
            hint="make room, or set EDGECNN_CACHE_DIR to a folder that can be written; what is there counts",
        )
