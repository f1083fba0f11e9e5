"""The result of an evaluation."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from edgecnn.accuracy.answers import NO_CLASS, Answers, Difference
from edgecnn.accuracy.baseline import Baseline

_FEW = 100
"""Images below which the interval of a share is up to 20 points wide."""


@dataclass(frozen=True)
class Change:
    """An image that gets another class than in fp32."""

    index: int
    """Of the image in the set that was judged."""
    name: str
    """What the set calls it."""
    label: int
    """Its class, as an index of outputs."""
    expected: int
    """The class that the fp32 network gives it; -1 where an output is no number."""
    got: int
    """The class that the judged network gives it, likewise."""


@dataclass(frozen=True)
class Confusion:
    """So many images went from one class to another."""

    expected: str
    """The class that the fp32 network gives."""
    got: str
    """The class that the judged network gives."""
    images: int
    """How many."""
    lost: int
    """Of them, those on which the fp32 network was right."""
    gained: int
    """Of them, those on which the judged network is right."""


@dataclass(frozen=True)
class Accuracy:
    """One network judged on labelled images, beside its fp32 network where it is not that itself."""

    data: str
    """The set of images."""
    data_sha256: str
    """What identifies it: images and labels."""
    names: tuple[str, ...] = field(repr=False)
    """What the set calls each image."""
    classes: tuple[str, ...] = field(repr=False)
    """Names of the network's outputs."""
    answers: Answers
    """What the network said on each image."""
    difference: Difference | None = None
    """What quantisation changed; None for an fp32 network that is compared with no other."""
    published_percent: float | None = None
    """Published top-1 accuracy of the weights, at their own resolution."""
    published_resolution: int | None = None
    """That resolution, in pixels."""
    baseline: Baseline | None = None
    """Set where the fp32 network is far below what is published."""
    notes: tuple[str, ...] = ()
    """What else a reader has to know, in sentences."""

    @property
    def network(self) -> str:
        """What was judged: ``mobilenet_v2-1.0-224 tflite int8``."""
        return self.answers.network

    @property
    def images(self) -> int:
        """How many images it was judged on."""
        return len(self.names)

    @property
    def changed(self) -> tuple[Change, ...]:
        """The images that get another class than in fp32, in the set's order."""
        if self.difference is None:
            return ()
        got, expected = self.difference.got, self.difference.expected
        return tuple(
            Change(int(i), self.names[i], int(got.labels[i]), int(expected.classes[i]), int(got.classes[i]))
            for i in self.difference.changed
        )

    @property
    def confusion(self) -> tuple[Confusion, ...]:
        """The classes between which images changed, the most frequent first."""
        changed = self.changed
        pairs = Counter((change.expected, change.got) for change in changed)
        lost = Counter((c.expected, c.got) for c in changed if c.expected == c.label)
        gained = Counter((c.expected, c.got) for c in changed if c.got == c.label)
        return tuple(
            Confusion(self.class_name(pair[0]), self.class_name(pair[1]), count, lost[pair], gained[pair])
            for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        )

    def class_name(self, index: int) -> str:
        """The name of an output."""
        return "no number" if index == NO_CLASS else self.classes[index]

    @property
    def too_few(self) -> str | None:
        """A sentence where there are too few images to say much."""
        if self.images == 1:
            return "one image says nothing of an accuracy: the interval is useless"
        if self.images < _FEW:
            low, high = self.answers.top1.interval
            return f"{self.images} images are few: the interval is {100 * (high - low):.0f} points wide"
        return None

    def to_json(self) -> dict[str, Any]:
        """A plain dict of all figures, and the images that changed."""
        return {
            "network": self.network,
            "data": self.data,
            "data_sha256": self.data_sha256,
            "images": self.images,
            "classes": len(self.classes),
            **_figures(self.answers),
            "against": None if self.difference is None else self._against(self.difference),
            "published_percent": self.published_percent,
            "published_resolution": self.published_resolution,
            "baseline": None if self.baseline is None else self.baseline.to_json(),
            "notes": [*([self.too_few] if self.too_few else []), *self.notes],
        }

    def _against(self, difference: Difference) -> dict[str, Any]:
        sqnr_db = difference.sqnr_db
        names = ("label", "expected", "got")
        return {
            "network": difference.expected.network,
            **_figures(difference.expected),
            "drop_points": difference.drop_points,
            "drop_interval_points": list(difference.drop_interval_points),
            "agreement": difference.agreement.to_json(),
            "sqnr_db": sqnr_db if math.isfinite(sqnr_db) else None,
            "confusion": [asdict(entry) for entry in self.confusion],
            "changed": [
                {"index": change.index, "name": change.name}
                | {name: self.class_name(getattr(change, name)) for name in names}
                for change in self.changed
            ],
        }


def _figures(answers: Answers) -> dict[str, Any]:
    top5 = answers.top5
    return {"top1": answers.top1.to_json(), "top5": None if top5 is None else top5.to_json()}
