"""Figures that took long to measure, kept on disk, so that a guard or a search ended at any point goes on."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.errors import OutputError
from edgecnn.fetch.cache import forget
from edgecnn.graph.graph import Graph
from edgecnn.spec import Preprocess
from edgecnn.whole import write_whole

_FORMAT = 2
_ROOM = "make room, then run the same command again: it goes on from here"
_ELSEWHERE = "set EDGECNN_CACHE_DIR to a folder that can be written"


@dataclass
class Journal:
    """What is known of one float network on one set of images, as they are fed to it.

    Its file is written at each new figure. A file that is torn or of another network is as good as none.
    """

    path: Path | None = None
    """The file; None to keep the figures in memory alone."""
    key: str = ""
    """What identifies network, images and labels."""
    figures: dict[str, Any] = field(default_factory=dict)
    """JSON values; a figure's name says what was measured and how."""

    @staticmethod
    def open(
        folder: Path,
        graph: Graph,
        data_sha256: str,
        preprocess: Preprocess | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> Journal:
        """The journal of a float graph on a set of images, empty where there is none that can be read.

        Journals in the folder that nobody wrote to for three months are removed.

        Args:
            folder: where journals are kept; made if it is not there.
            graph: fp32.
            data_sha256: what identifies the images.
            preprocess: how they become inputs.
            labels: the output that is right for each.

        Raises:
            OutputError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror}", hint=_ELSEWHERE) from error
        forget(folder, "guard-*")
        parts = [graph.digest, data_sha256, repr(preprocess)]
        parts.append("" if labels is None else hashlib.sha256(labels.tobytes()).hexdigest())
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        path = folder / f"guard-{key[:16]}.json"
        journal = Journal(path, key)
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("format") == _FORMAT and record.get("key") == key:
                journal.figures |= record["figures"]
        return journal

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        if self.path is None:
            return
        record = {"format": _FORMAT, "key": self.key, "figures": self.figures}
        write_whole(self.path, json.dumps(record).encode(), if_full=_ROOM, if_not=_ELSEWHERE)

    def outputs(self) -> npt.NDArray[np.float32] | None:
        """The float graph's outputs, (N, ...), or None where they are not known."""
        if self.path is None:
            return None
        try:
            kept: npt.NDArray[np.float32] = np.load(_beside(self.path), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return kept

    def keep_outputs(self, outputs: npt.NDArray[np.float32]) -> None:
        """Write down the float graph's outputs.

        Raises:
            OutputError: they cannot be written.
        """
        if self.path is not None:
            stream = io.BytesIO()
            np.save(stream, outputs)
            write_whole(_beside(self.path), stream.getvalue(), if_full=_ROOM, if_not=_ELSEWHERE)


def _beside(path: Path) -> Path:
    """Where the float graph's outputs are."""
    return path.with_suffix(".npy")
