"""Measurements made one after another and kept in a file, so that a series that ends early goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecnn.artifact import Artifact
from edgecnn.errors import ConfigError, EdgeCNNError
from edgecnn.measurement import Measurement
from edgecnn.whole import write_whole


class Series:
    """A file of JSON lines, one a measurement, each with what was asked for.

    The file is replaced as a whole with each measurement that is added: whatever ends the process, every line
    is a whole one.
    """

    def __init__(self, path: Path | None, *, resume: bool) -> None:
        """Open a series, or begin one; the file comes with the first measurement.

        Args:
            path: the file; None where nothing is to be kept.
            resume: go on with what is there.

        Raises:
            ConfigError: the file is there and shall not be gone on with, or it is no such file.
        """
        self.path = path
        self._lines: list[dict[str, Any]] = []
        if path is None or not path.exists():
            return
        if not resume:
            raise ConfigError(
                f"{path} is there already", hint="pass --resume to go on with it, or -o for another file"
            )
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read", hint="choose another file with -o") from error
        for number, text in enumerate(texts, 1):
            try:
                line = json.loads(text)
                _measurement(line)
            except (ValueError, TypeError, KeyError, ConfigError) as error:
                raise ConfigError(
                    f"line {number} of {path} is no whole measurement",
                    hint="take it out to go on with the others, or choose another file with -o",
                ) from error
            self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def find(self, asked: dict[str, Any]) -> Measurement | None:
        """What was measured when the same was asked for, or None."""
        for line in self._lines:
            if line["asked"] == asked:
                return _measurement(line)
        return None

    def add(self, asked: dict[str, Any], measurement: Measurement) -> None:
        """Keep a measurement.

        Raises:
            OutputError: the file cannot be written; the one before is still there.
        """
        self._lines.append({"asked": asked, "measurement": json.loads(measurement.to_json_line())})
        if self.path is None:
            return
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        write_whole(
            self.path,
            text.encode(),
            if_full="make room, and go on with --resume",
            if_not="choose another file with -o",
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Says of an error within that what was measured before is not lost."""
        try:
            yield
        except EdgeCNNError as error:
            if self.path is not None and self._lines:
                held = f"{self.path} holds what was measured; the same command with --resume goes on"
                error.hint = f"{error.hint}; {held}" if error.hint else held
            raise


def question(artifact: Artifact, device: str, **how: Any) -> dict[str, Any]:
    """What decides a measurement: the bundle by its content, the device's address, threads, cores, limits."""
    files = {name: entry["sha256"] for name, entry in sorted(artifact.manifest["files"].items())}
    return {"bundle": artifact.path.name, "files": files, "device": device, **how}


def _measurement(line: dict[str, Any]) -> Measurement:
    return Measurement.from_json(json.dumps(line["measurement"]))
