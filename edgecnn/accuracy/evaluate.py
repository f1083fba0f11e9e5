"""A network judged on labelled images that its calibration has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecnn.accuracy.answers import Answers, Difference
from edgecnn.accuracy.baseline import is_far_below, look_for_cause
from edgecnn.accuracy.classifier import Classifier, float_of, of_bundle, of_network
from edgecnn.accuracy.predict import predict
from edgecnn.accuracy.values import Accuracy
from edgecnn.artifact import Artifact
from edgecnn.bundle.write import read
from edgecnn.data.fit import fit_labels
from edgecnn.data.labelled import LabelledSet
from edgecnn.data.open_set import open_set
from edgecnn.errors import ConfigError, DataError
from edgecnn.progress import Progress, silent
from edgecnn.source.request import make_request


def evaluate(
    bundle: str | Path,
    data: str | Path | LabelledSet,
    *,
    against: str | Path | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> Accuracy:
    """Judge a bundle on its own runtime, in this process.

    A bundle that is not fp32 is compared with its float network, which is made again from the command in its
    manifest unless ``against`` names an fp32 bundle of it. An evaluation that was interrupted goes on where
    it was, and one that is done is not done again.

    Args:
        bundle: the folder.
        data: a folder of class folders, a CSV of file and label, a named set, or images already opened.
        against: an fp32 bundle of the same network.
        limit: judge on so many of the images, drawn without looking at them; None for all.
        progress: told how far the work is.

    Raises:
        ConfigError: not a bundle, not a classifier, or no fp32 network that can be compared with it.
        DataError: images that cannot be read or that calibration has seen, or labels that do not fit.
        MissingDependency: its runtime is not installed.
        OutputError: the cache folder cannot be written.
    """
    artifact = read(Path(bundle))
    judged = of_bundle(artifact)
    weights = artifact.manifest["weights"]
    reference = None
    if against is not None:
        reference = _other(artifact, read(Path(against)))
    elif artifact.precision != "fp32":
        reference = float_of(artifact, judged, progress)
    return judge(
        judged,
        opened(data, limit, progress),
        reference,
        calibrated=_calibrated(artifact),
        top1_percent=weights["top1_percent"],
        trained_resolution=weights["trained_resolution"],
        random=weights["random"],
        progress=progress,
    )


def evaluate_float(
    model: str | Path,
    data: str | Path | LabelledSet,
    *,
    limit: int | None = None,
    progress: Progress = silent,
    **source: Any,
) -> Accuracy:
    """Judge a network as it comes, in fp32 in ONNX Runtime, without compiling it for a target.

    Args:
        model: what ``edgecnn.export`` takes.
        data: as `evaluate` takes it.
        limit: as `evaluate` takes it.
        progress: told how far the work is.
        source: which variant of it: ``width``, ``resolution``, ``classes``, ``in_channels``,
            ``input_shape``, ``weights``, ``preprocess``, as ``edgecnn.export`` takes them.

    Raises:
        EdgeCNNError: as ``edgecnn.export`` and `evaluate` do.
    """
    from edgecnn.source.load import load  # brings torch, which a bundle does without

    request = make_request(model, **source)
    images = opened(data, limit, progress)
    network = load(request, progress)
    if network.qdq is not None:
        raise ConfigError(
            f"{model} is quantised already", hint="say for what it is compiled: --target T --precision int8"
        )
    weights = network.weights
    return judge(
        of_network(network),
        images,
        top1_percent=weights.top1_percent,
        trained_resolution=weights.trained_resolution,
        random=weights.random,
        progress=progress,
    )


def opened(data: str | Path | LabelledSet, limit: int | None, progress: Progress = silent) -> LabelledSet:
    """The images to judge on: all of the set, or ``limit`` of them.

    Which ones is drawn by a fixed seed, so that more of them hold all of fewer.

    Raises:
        ConfigError: a limit below one.
        DataError: there is no such set, or it cannot be read.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"accuracy cannot be judged on {limit} images", hint="--limit 1 or more")
    images = data if isinstance(data, LabelledSet) else open_set(data, progress=progress)
    if limit is None or limit >= len(images):
        return images
    drawn = np.random.default_rng(0).permutation(len(images))[:limit]
    return images.take([int(index) for index in np.sort(drawn)])


def judge(
    judged: Classifier,
    data: LabelledSet,
    reference: Classifier | None = None,
    *,
    calibrated: Sequence[str] = (),
    top1_percent: float | None = None,
    trained_resolution: int | None = None,
    random: bool = False,
    progress: Progress = silent,
) -> Accuracy:
    """Judge a classifier, and compare it with another on the same images.

    Args:
        judged: the network in question.
        data: the images; all of them count.
        reference: its fp32 network; None where it is fp32 itself.
        calibrated: fingerprints of the images that decided int8 ranges.
        top1_percent: published accuracy of the weights, where there is one.
        trained_resolution: the resolution that figure holds for, in pixels.
        random: whether the weights are untrained.
        progress: told how far the work is.

    Raises:
        ConfigError: the two prepare images differently, or have other outputs.
        DataError: images that cannot be read or that calibration has seen, or labels that do not fit.
        OutputError: the cache folder cannot be written.
    """
    outputs = fit_labels(data, judged.labels, judged.outputs)
    labels = outputs[data.labels]
    if reference is not None and reference.outputs != judged.outputs:
        raise ConfigError(
            f"{judged.name} has {judged.outputs} outputs, {reference.name} {reference.outputs}",
            hint="compare with the network that it was made from",
        )
    progress("reading the images", 0, None)
    fingerprints = data.fingerprints
    refuse_seen(data, calibrated)
    both = [judged] if reference is None else [judged, reference]
    logits = predict(both, data.pictures, fingerprints, progress)
    answers = [Answers(network.name, labels, given) for network, given in zip(both, logits, strict=True)]

    notes = []
    side = judged.recipe.crop[0]
    if random:
        notes.append("the weights are random: no accuracy means anything")
    if answers[0].broken:
        notes.append(
            f"{answers[0].broken} of {len(data)} images give outputs that are no numbers; they count as wrong"
        )
    baseline = None
    if top1_percent is not None and trained_resolution not in (None, side):
        notes.append(f"the published figure is for {trained_resolution} pixels, this network takes {side}")
    elif top1_percent is not None and is_far_below(answers[-1].top1, top1_percent):
        baseline = look_for_cause(both[-1], answers[-1], data.pictures, fingerprints, top1_percent, progress)
    return Accuracy(
        data=data.name,
        data_sha256=data.sha256,
        names=tuple(data.pictures.name(index) for index in range(len(data))),
        classes=_names(judged, data, outputs),
        answers=answers[0],
        difference=None if reference is None else Difference(answers[0], answers[1]),
        published_percent=top1_percent,
        published_resolution=trained_resolution,
        baseline=baseline,
        notes=tuple(notes),
    )


def _other(artifact: Artifact, against: Artifact) -> Classifier:
    """The classifier of a bundle that another is compared with."""
    if against.precision != "fp32":
        raise ConfigError(
            f"{against.path} is {against.precision}", hint="what is compared with is an fp32 bundle"
        )
    ours, theirs = (bundle.manifest.get("float_graph_sha256") for bundle in (artifact, against))
    if artifact.variant != against.variant or ours != theirs:
        raise ConfigError(
            f"{against.path} is of another network or other weights than {artifact.path}",
            hint="export the same network with --precision fp32",
        )
    return of_bundle(against)


def _calibrated(artifact: Artifact) -> Sequence[str]:
    calibration = artifact.manifest.get("calibration")
    if calibration is None:
        return ()
    fingerprints = calibration.get("fingerprints")
    if not isinstance(fingerprints, list):
        raise ConfigError(
            f"{artifact.path} does not say which images it was calibrated on",
            hint="export it again with --force",
        )
    return fingerprints


def refuse_seen(data: LabelledSet, calibrated: Sequence[str]) -> None:
    """Refuse to judge on images that calibration has seen.

    Raises:
        DataError: some of ``data`` have one of the fingerprints ``calibrated``.
    """
    known = set(calibrated)
    seen = [index for index, fingerprint in enumerate(data.fingerprints) if fingerprint in known]
    if seen:
        one = data.pictures.name(seen[0])
        raise DataError(
            f"{len(seen)} of {len(data)} images were calibrated on, {one} among them: an accuracy on them is "
            "too good",
            hint="judge on other images (--data SET:test), or calibrate on others (--calibration SET:train)",
        )


def _names(judged: Classifier, data: LabelledSet, outputs: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Names of the outputs: the network's own, else those of the set's classes."""
    if judged.labels is not None:
        return judged.labels
    known = dict(zip(outputs.tolist(), data.classes, strict=True))
    return tuple(known.get(output, f"class {output}") for output in range(judged.outputs))
