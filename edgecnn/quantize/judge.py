"""Many int8 graphs of a network on one set of images: how often the class is right, or the float graph's."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.backends.onnxruntime import load_fused
from edgecnn.data.sets import Images
from edgecnn.errors import DataError
from edgecnn.graph.graph import Graph
from edgecnn.graph.reference import Runner, load_reference
from edgecnn.progress import Progress, silent
from edgecnn.quantize.journal import Journal
from edgecnn.sqnr import decibel

Loader = Callable[[Graph], Runner]
"""Compiles and loads an int8 graph."""

# Inputs that take up to this are kept decoded; larger sets are decoded again for every graph.
_KEPT_BYTES = 2**30


@dataclass(frozen=True)
class Judged:
    """What an int8 graph reaches on a set of images."""

    images: int
    """How many images."""
    agreement: float
    """Share of the images with the float graph's top-1, from 0 to 1."""
    sqnr_db: float
    """Power of the float outputs over the power of the difference, in dB; infinite where they are equal."""
    top1: float | None
    """Share of the images whose top-1 is the label, from 0 to 1; None without labels."""

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return asdict(self) | {"sqnr_db": self.sqnr_db if math.isfinite(self.sqnr_db) else None}

    @staticmethod
    def from_json(record: dict[str, Any]) -> Judged:
        """The value that ``to_json`` gave."""
        decibel = record["sqnr_db"]
        return Judged(**record | {"sqnr_db": math.inf if decibel is None else decibel})


@dataclass(frozen=True)
class Judge:
    """A set of images, with what the float graph says about each."""

    images: Images = field(repr=False)
    """The inputs."""
    labels: npt.NDArray[np.int64] | None = field(repr=False)
    """The output that is right for each, (N,); None where that is not known."""
    expected: npt.NDArray[np.float32] = field(repr=False)
    """The float graph's outputs, (N, ...)."""
    load: Loader = load_fused
    """Runs the graphs."""
    runtime: str = "onnxruntime"
    """What identifies ``load``."""
    journal: Journal = field(default_factory=Journal, repr=False)
    """Knows the graphs that were judged before."""
    part: str = "all"
    """What identifies the images among those of the journal."""

    @property
    def top1(self) -> float | None:
        """The float graph's share of right answers."""
        return None if self.labels is None else float((_top1(self.expected) == self.labels).mean())

    def of(self, indices: Collection[int]) -> Judge:
        """The same of some of the images."""
        places = sorted(indices)
        part = f"{self.part} {hashlib.sha256(repr(places).encode()).hexdigest()[:16]}"
        return replace(
            self,
            images=[image for index, image in enumerate(self.images) if index in indices],
            labels=None if self.labels is None else self.labels[places],
            expected=self.expected[places],
            part=part,
        )

    def __call__(
        self, graph: Graph, *, until: float = math.inf, progress: Progress = silent, what: str = "judging"
    ) -> Judged | None:
        """Judge one int8 graph; None where ``time.monotonic()`` passed ``until`` first.

        Raises:
            OutputError: the journal cannot be written.
        """
        name = f"{graph.digest} on {self.part} by {self.runtime}"
        if name in self.journal.figures:
            return Judged.from_json(self.journal.figures[name])
        judged = self._judge(graph, until, progress, what)
        if judged is not None:
            self.journal.figures[name] = judged.to_json()
            self.journal.save()
        return judged

    def _judge(self, graph: Graph, until: float, progress: Progress, what: str) -> Judged | None:
        run = self.load(graph)
        agree = right = 0
        signal = noise = 0.0
        best = _top1(self.expected)
        for index, image in enumerate(self.images):
            if time.monotonic() >= until:
                return None
            exact, got = self.expected[index], run(image)[0][0]
            answer = int(np.argmax(got))
            agree += int(answer == best[index])
            right += int(self.labels is not None and answer == self.labels[index])
            signal += float(np.square(exact, dtype=np.float64).sum())
            noise += float(np.square(got - exact, dtype=np.float64).sum())
            progress(what, index + 1, len(best))
        count = len(best)
        return Judged(
            count,
            agree / count,
            decibel(signal, noise),
            None if self.labels is None else right / count,
        )


def judge_of(
    graph: Graph,
    images: Images,
    labels: npt.NDArray[np.int64] | None,
    *,
    load: Loader = load_fused,
    runtime: str = "onnxruntime",
    journal: Journal | None = None,
    progress: Progress = silent,
) -> Judge:
    """Run the float graph on all images.

    Args:
        graph: fp32.
        images: the inputs, at least one.
        labels: the output that is right for each, or None.
        load: runs the int8 graphs.
        runtime: what identifies ``load``.
        journal: knows the float graph's outputs and what was judged before; None for a new one.
        progress: told how far it is.

    Raises:
        DataError: no image, or another number of labels.
        OutputError: the journal cannot be written.
    """
    if not len(images):
        raise DataError("there are no images to judge on")
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{len(images)} images with {len(labels)} labels")
    kept = _Kept(images)
    journal = journal or Journal()
    known = journal.outputs()
    if known is not None and len(known) == len(images):
        return Judge(kept, labels, known, load, runtime, journal)
    run = load_reference(graph, fused=True)
    outputs = []
    for index, image in enumerate(kept):
        outputs.append(run(image)[0][0])
        progress("running the float graph", index + 1, len(images))
    expected = np.stack(outputs)
    journal.keep_outputs(expected)
    return Judge(kept, labels, expected, load, runtime, journal)


class _Kept:
    """Images that are decoded once, where all of them fit into memory."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._kept: list[npt.NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[npt.NDArray[np.float32]] | None = []
        for image in self._images:
            if kept is not None and len(self._images) * image.nbytes <= _KEPT_BYTES:
                kept.append(image)
            else:
                kept = None
            yield image
        self._kept = kept


def _top1(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    best: npt.NDArray[np.int64] = outputs.reshape(len(outputs), -1).argmax(axis=1)
    return best
