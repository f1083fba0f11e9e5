"""Why a network is far worse than its published figure: nearly always, because it is fed otherwise.

A network that was trained on other inputs than it gets still gives answers, only worse ones. What is usually
wrong is tried on a few images: another normalisation, red and blue changed over, labels counted from 1; and
from all answers it is seen whether only the order of the classes is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgecnn.accuracy.answers import NO_CLASS, Answers
from edgecnn.accuracy.classifier import Classifier
from edgecnn.accuracy.interval import Share
from edgecnn.accuracy.predict import Logits, predict
from edgecnn.data.labelled import Pictures
from edgecnn.progress import Progress, silent
from edgecnn.source.recipes import RECIPES
from edgecnn.spec import Preprocess

MARGIN_POINTS = 5.0
"""How far below the published top-1 the upper end of the interval has to be for alarm, in points: other
decoders, resizing and test sets that are only alike cost less."""
_IMAGES = 200
_SHIFTS = {
    "labels one lower (the data counts from 1)": -1,
    "labels one higher (the network has a class before the first)": 1,
}


@dataclass(frozen=True)
class Trial:
    """The same network fed otherwise."""

    change: str
    """What was changed."""
    top1: Share
    """How often it is right then."""


@dataclass(frozen=True)
class Baseline:
    """A float network that is far below its published accuracy, and what was tried."""

    network: str
    """The network."""
    top1: Share
    """How often it is right, on all images."""
    published_percent: float
    """Its published top-1 accuracy."""
    sample: Share
    """How often it is right on the images that the trials ran on."""
    trials: tuple[Trial, ...]
    """What was tried, the best first."""

    @property
    def cause(self) -> Trial | None:
        """The trial that is clearly better than what was judged: beyond both intervals."""
        best = self.trials[0] if self.trials else None
        if best is None or best.top1.interval[0] <= self.sample.interval[1]:
            return None
        return best

    def to_json(self) -> dict[str, Any]:
        """A plain dict, with the sentences that people read."""
        return {
            "network": self.network,
            "top1": self.top1.to_json(),
            "published_percent": self.published_percent,
            "sample": self.sample.to_json(),
            "trials": [{"change": trial.change, "top1": trial.top1.to_json()} for trial in self.trials],
            "cause": None if self.cause is None else self.cause.change,
        }


def is_far_below(top1: Share, published_percent: float) -> bool:
    """Whether a measured top-1 cannot be the published one."""
    return 100 * top1.interval[1] < published_percent - MARGIN_POINTS


def look_for_cause(
    classifier: Classifier,
    answers: Answers,
    pictures: Pictures,
    fingerprints: Sequence[str],
    published_percent: float,
    progress: Progress = silent,
) -> Baseline:
    """Try what is usually wrong, on up to 200 of the images.

    Args:
        classifier: the float network.
        answers: what it said on all images.
        pictures: the N images.
        fingerprints: theirs, in order.
        published_percent: its published top-1 accuracy.
        progress: told how far the trials are.

    Raises:
        DataError, OutputError: as `predict` does.
    """
    chosen = np.unique(np.linspace(0, len(pictures) - 1, _IMAGES).astype(np.int64))
    some = pictures.take([int(index) for index in chosen])
    theirs = [fingerprints[index] for index in chosen]
    truth = answers.labels[chosen]

    def top1(logits: Logits, shift: int = 0) -> Share:
        return Answers(classifier.name, truth + shift, logits).top1

    as_it_is = answers.logits[chosen]
    trials = [Trial(what, top1(as_it_is, shift)) for what, shift in _SHIFTS.items()]
    for what, fed in _otherwise(classifier):
        [logits] = predict([fed], some, theirs, progress)
        trials.append(Trial(what, top1(logits)))
        trials += [Trial(f"{what}, and {also}", top1(logits, shift)) for also, shift in _SHIFTS.items()]
    trials.append(Trial("its classes in another order (check the labels' order)", reordered(answers)))
    trials.sort(key=lambda trial: -trial.top1.value)
    return Baseline(classifier.name, answers.top1, published_percent, top1(as_it_is), tuple(trials))


def reordered(answers: Answers) -> Share:
    """How often a network is right if its outputs are named anew, each after another class.

    The names come from every second image of a class, those given most often first, and are judged on the
    others, so that a network that knows nothing gains nothing.
    """
    second = np.zeros(len(answers.labels), bool)
    for label in np.unique(answers.labels):
        second[np.flatnonzero(answers.labels == label)[1::2]] = True
    learnt = ~second & (answers.classes != NO_CLASS)
    pairs = np.stack([answers.classes, answers.labels], axis=1)[learnt]
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    names: dict[int, int] = {}
    for output, label in found[np.argsort(-counts, kind="stable")].tolist():
        if output not in names and label not in names.values():
            names[output] = label
    named = np.array([names.get(output, NO_CLASS) for output in answers.classes[second].tolist()])
    return Share(int((named == answers.labels[second]).sum()), max(len(named), 1))


def _otherwise(classifier: Classifier) -> list[tuple[str, Classifier]]:
    own = classifier.recipe
    found: list[tuple[str, Classifier]] = []
    channels, (height, width) = len(own.mean), own.crop
    recipes: list[tuple[str, Preprocess]] = [("the preprocessing it has", own)]
    for name, recipe in RECIPES.items():
        fitted = recipe.fitted(channels, height, width)
        other = replace(own, mean=fitted.mean, std=fitted.std)
        if other != own:
            recipes.append((f"--preprocess {name}", other))
    for what, recipe in recipes:
        if recipe != own:
            found.append((what, classifier.prepared(recipe)))
        if channels == 3:
            found.append((f"{what}, red and blue changed over (BGR)", classifier.prepared(recipe, bgr=True)))
    return found
