"""What networks said on labelled images, and the figures that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgecnn.accuracy.interval import Share, paired_drop
from edgecnn.sqnr import decibel

NO_CLASS = -1
"""The class of an image for which an output is no number."""


@dataclass(frozen=True)
class Answers:
    """One network's outputs for N labelled images."""

    network: str
    """What people call it: ``mobilenet_v2-1.0-224 tflite int8``."""
    labels: npt.NDArray[np.int64] = field(repr=False)
    """The class of each image, as an index of outputs, (N,)."""
    logits: npt.NDArray[np.float32] = field(repr=False)
    """What it gave for each, (N, outputs)."""

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """The index of each image's largest output, the first of equal ones, or ``NO_CLASS``; (N,)."""
        return np.where(self._sound, self.logits.argmax(axis=1), NO_CLASS)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether that is the image's class, (N,)."""
        return np.equal(self.classes, self.labels)

    @property
    def top1(self) -> Share:
        """Images whose class is the largest output."""
        return Share(int(self.right.sum()), len(self.labels))

    @property
    def top5(self) -> Share | None:
        """Images whose class is among the five largest outputs; None where there are five or fewer."""
        if self.logits.shape[1] <= 5:
            return None
        # A stable sort, so that of equal outputs the first counts, as for the top-1.
        five = np.argsort(-self.logits, axis=1, kind="stable")[:, :5]
        found = (five == self.labels[:, None]).any(axis=1)
        return Share(int((found & self._sound).sum()), len(self.labels))

    @property
    def broken(self) -> int:
        """Images for which an output is no number."""
        return int((~self._sound).sum())

    @cached_property
    def _sound(self) -> npt.NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.logits).all(axis=1))


@dataclass(frozen=True)
class Difference:
    """A network beside its fp32 network, on the same images."""

    got: Answers
    """The network in question."""
    expected: Answers
    """The fp32 network."""

    @property
    def agreement(self) -> Share:
        """Images that get the class that the fp32 network gives them, right or wrong."""
        return Share(len(self.got.labels) - len(self.changed), len(self.got.labels))

    @cached_property
    def changed(self) -> npt.NDArray[np.int64]:
        """The indices of the other images."""
        return np.flatnonzero((self.got.classes != self.expected.classes) | (self.got.classes == NO_CLASS))

    @property
    def drop_points(self) -> float:
        """How many points of top-1 are lost; negative where some are gained."""
        return 100 * (self.expected.top1.value - self.got.top1.value)

    @property
    def drop_interval_points(self) -> tuple[float, float]:
        """The 95 % interval of `drop_points`, from the images on which only one of the two is right."""
        lost = int((self.expected.right & ~self.got.right).sum())
        gained = int((self.got.right & ~self.expected.right).sum())
        low, high = paired_drop(lost, gained, len(self.got.labels))
        return 100 * low, 100 * high

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise, over all outputs of all images, in dB; infinite without noise."""
        expected = self.expected.logits.astype(np.float64)
        signal = float(np.square(expected).sum())
        noise = float(np.square(expected - self.got.logits).sum())
        return decibel(signal, noise)
