"""Figures that took long to measure, kept in a file, so that a search ended at any point goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import OutputError
from edgecnn.quantize.judge import Judged

_FORMAT = 1


@dataclass
class Journal:
    """What is known of one network on one set of images; written to its file at each new figure."""

    path: Path
    """The file."""
    key: str
    """What identifies the network, the images and how they are judged."""
    noise: dict[str, float] = field(default_factory=dict)
    """Of each rounding alone."""
    judged: dict[tuple[str, frozenset[str]], Judged] = field(default_factory=dict)
    """By the set of images (``all`` or ``few``) and the layers in float."""

    @staticmethod
    def open(folder: Path, key: str) -> Journal:
        """The journal of ``key``, empty where there is none that can be read.

        Raises:
            OutputError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror}") from error
        journal = Journal(folder / f"guard-{key[:16]}.json", key)
        try:
            record = json.loads(journal.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return journal
        if record.get("format") == _FORMAT and record.get("key") == key:
            journal.noise |= record["noise"]
            journal.judged |= {
                (entry["on"], frozenset(entry["float"])): Judged.from_json(entry["judged"])
                for entry in record["judged"]
            }
        return journal

    def add(self, on: str, layers: Collection[str], judged: Judged) -> None:
        """Write down one more figure."""
        self.judged[on, frozenset(layers)] = judged
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        entries = [
            {"on": on, "float": sorted(layers), "judged": judged.to_json()}
            for (on, layers), judged in self.judged.items()
        ]
        record: dict[str, Any] = {
            "format": _FORMAT,
            "key": self.key,
            "noise": self.noise,
            "judged": entries,
        }
        part = self.path.with_suffix(".part")
        try:
            with part.open("w", encoding="utf-8") as stream:
                json.dump(record, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.path)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from error
