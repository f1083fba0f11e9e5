"""What int8 costs MobileNetV2 with its ImageNet weights, on photographs that calibration never saw.

    python benchmarks/int8_quality.py

Calibrated on the photographs in the package, judged on those of photos.py against the fp32 graph:

- agreement: the share of photographs with the same top-1, with its 95 % Wilson interval;
- ties: on how many photographs several classes share the highest int8 logit; the first of them counts;
- SQNR: total power of the fp32 logits over total power of the difference, over all logits of a set, in dB.

Two sets are kept apart: photographs of at least 224 pixels on the shorter side, and Open Images thumbnails of
120x120, which are enlarged to twice their size. A thumbnail lacks the detail that the network was trained on:
its margins between first and second class are narrow in fp32 already (the table has them), so that the same
noise turns more of them over. Neither set is one of the ImageNet benchmark.

Each photograph is judged as it is and mirrored, which narrows the intervals.

Judged are the int8 graph run unfused, the files of the three runtimes, the graph without the rounding that
keeps sums (edgecnn.quantize.rounding) and without the channels brought to one range
(edgecnn.quantize.equalize), and the other converters' files, calibrated on the same photographs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ours
import table
from peers.environments import PEERS, built
from photos import evaluation_photos
from PIL import Image
from results import argument_parser, machine, say, write

from edgecnn.backends import RUNTIMES
from edgecnn.data.sets import ImageStream
from edgecnn.graph.reference import load_reference
from edgecnn.progress import silent
from edgecnn.quantize.equalize import equalize
from edgecnn.quantize.form import to_qdq
from edgecnn.quantize.ranges import find_ranges
from edgecnn.quantize.rounding import round_weights
from edgecnn.versions import tool_versions

LARGE_FROM = 224
_LABELLED = re.compile(r"imagenet_\d+_(\d+)\.jpg")

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Judge, write ``results/int8_quality.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--no-peers", action="store_true", help="leave the other converters out")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    say("fetching photographs")
    photos = evaluation_photos(work / "photos")
    say("quantising")
    made = ours.make()
    runs = _ours(made, work)
    if not arguments.no_peers:
        inputs = ours.inputs(work)
        for peer in PEERS:
            model = built(peer, inputs, work)["int8"]
            runs[f"{peer.name}: {peer.runtime}"] = ours.runner(peer.runtime, model)

    result: dict[str, Any] = {
        "machine": machine(),
        "versions": tool_versions(("openvino", "ai-edge-litert")),
        "calibration_images": len(ours.calibration(made.recipe)),
        "photos": [about for path in photos for about in _views(path)],
        **_judge(load_reference(made.float_graph), runs, photos, made),
    }
    path = write("int8_quality", result)
    print(table.int8_quality(result))
    say(f"raw figures of each photograph in {path}")


def _ours(made: ours.Ours, work: Path) -> dict[str, Run]:
    runs = {"edgecnn: int8 graph, unfused": _only(load_reference(made.qdq_graph))}
    files = made.files(work)
    for runtime in RUNTIMES:
        runs[f"edgecnn: {runtime}"] = ours.runner(runtime, files[runtime, "int8"][0])
    images = ours.calibration(made.recipe)
    nearest, kept = made.float_graph, round_weights(made.float_graph)
    ranges = find_ranges(nearest, images, len(images), silent, by_channel=True)
    without = to_qdq(equalize(nearest, ranges), ranges)
    runs["edgecnn: int8 graph, weights rounded to nearest"] = _only(load_reference(without))
    without = to_qdq(kept, find_ranges(kept, images, len(images), silent))
    runs["edgecnn: int8 graph, channels not equalised"] = _only(load_reference(without))
    return runs


def _only(run: Callable[[np.ndarray], list[np.ndarray]]) -> Run:
    return lambda x: run(x)[0]


def _views(path: Path) -> list[dict[str, Any]]:
    """What is known of a photograph, as it is and mirrored; the label counts once."""
    labelled = _LABELLED.fullmatch(path.name)
    with Image.open(path) as image:
        shorter = min(image.size)
    about = {"package": path.parents[1].name, "file": path.name, "shorter_side": shorter}
    label = int(labelled.group(1)) if labelled else None
    return [about | {"mirrored": False, "label": label}, about | {"mirrored": True, "label": None}]


def _judge(
    reference: Callable[[np.ndarray], list[np.ndarray]],
    runs: dict[str, Run],
    photos: Sequence[Path],
    made: ours.Ours,
) -> dict[str, Any]:
    """For each photograph: the fp32 logits' top-1, power and margin; each path's top-1, ties and noise."""
    fp32: dict[str, list[float]] = {"top1": [], "power": [], "margin": []}
    paths: dict[str, dict[str, list[float]]] = {name: {"top1": [], "tied": [], "noise": []} for name in runs}
    stream = ImageStream(tuple(photos), made.recipe)
    views = (np.ascontiguousarray(view) for x in stream for view in (x, x[..., ::-1]))
    for done, x in enumerate(views):
        if done % 200 == 0:
            say(f"view {done} of {2 * len(photos)}")
        expected = reference(x)[0].reshape(-1)
        second, first = np.partition(expected, -2)[-2:]
        fp32["top1"].append(int(expected.argmax()))
        fp32["power"].append(float(np.square(expected).sum()))
        fp32["margin"].append(float(first - second))
        for name, run in runs.items():
            logits = run(x).reshape(-1)
            paths[name]["top1"].append(int(logits.argmax()))
            paths[name]["tied"].append(int((logits == logits.max()).sum() > 1))
            paths[name]["noise"].append(float(np.square(expected - logits).sum()))
    return {"large_from": LARGE_FROM, "fp32": fp32, "int8": paths}


if __name__ == "__main__":
    main()
