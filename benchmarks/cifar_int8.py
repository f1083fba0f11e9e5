"""What int8 costs networks on CIFAR-10, in points of top-1 on all 10,000 test images.

    python benchmarks/cifar_int8.py

ResNet-20 and MobileNetV1 at widths 0.25, 0.5, 0.75 and 1.0 with the weights that travel with the package,
ResNet-56 with weights that others published (resnet56_cifar10.py). Each is calibrated on 512 images of the
training part, as many of each class, and judged in fp32 and in int8 on each runtime, by the files that
edgecnn compiles for it. The drop is the accuracy of the fp32 file less that of the int8 file on the same
runtime; its interval is that of paired answers, since both saw the same images.

What a network said of an image is kept in edgecnn's cache: a run that was cut short goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ours
import resnet56_cifar10
import table
from results import argument_parser, machine, read, say, write
from torch import nn

from edgecnn.accuracy.classifier import Classifier
from edgecnn.accuracy.evaluate import judge, opened
from edgecnn.backends import RUNTIMES, backend
from edgecnn.data.calibration import open_calibration
from edgecnn.data.labelled import LabelledSet
from edgecnn.graph.from_torch import export
from edgecnn.spec import Preprocess
from edgecnn.target import load_target
from edgecnn.versions import tool_versions, version_of
from edgecnn.zoo import build, make_spec
from edgecnn.zoo.weights import load_weights

Make = Callable[[], tuple[nn.Module, Preprocess, float | None]]

CIFAR10 = "cifar10"


def main() -> None:
    """Judge, write ``results/cifar_int8.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), help="only this one; the others' results stay")
    parser.add_argument("--limit", type=int, help="judge on so many images, and write no results")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    result: dict[str, Any] = {"machine": machine(), "versions": tool_versions(("openvino", "ai-edge-litert"))}
    say("opening CIFAR-10")
    data = opened(f"{CIFAR10}:test", arguments.limit)
    result |= {"data": data.name, "data_sha256": data.sha256, "images": len(data), "networks": {}}
    earlier = read("cifar_int8") if arguments.network else {}
    kept = earlier["networks"] if earlier.get("data_sha256") == data.sha256 else {}
    for name, make in NETWORKS.items():
        if arguments.network in (None, name):
            result["networks"][name] = _judge(name, make, data, work / "edgecnn" / name.replace(" ", "-"))
        elif name in kept:
            result["networks"][name] = kept[name]
    if arguments.limit is None:
        say(f"figures in {write('cifar_int8', result)}")
    print(table.cifar_int8(result))


def _zoo(model: str, width: float) -> tuple[nn.Module, Preprocess, float | None]:
    spec = make_spec(model, width=width)
    network = build(spec)
    weights = load_weights(spec, network, CIFAR10)
    return network, weights.preprocess, weights.top1_percent


def _published() -> tuple[nn.Module, Preprocess, float | None]:
    return resnet56_cifar10.resnet56(), resnet56_cifar10.RECIPE, resnet56_cifar10.PUBLISHED_PERCENT


NETWORKS: dict[str, Make] = {
    "resnet20_cifar": partial(_zoo, "resnet20_cifar", 1.0),
    "resnet56_cifar": _published,
    "mobilenet_v1_cifar 0.25": partial(_zoo, "mobilenet_v1_cifar", 0.25),
    "mobilenet_v1_cifar 0.5": partial(_zoo, "mobilenet_v1_cifar", 0.5),
    "mobilenet_v1_cifar 0.75": partial(_zoo, "mobilenet_v1_cifar", 0.75),
    "mobilenet_v1_cifar 1.0": partial(_zoo, "mobilenet_v1_cifar", 1.0),
}


def _judge(name: str, make: Make, data: LabelledSet, folder: Path) -> dict[str, Any]:
    say(f"{name}: quantising")
    network, recipe, published = make()
    graph = export(network, name, (1, 3, *recipe.crop))
    calibration = open_calibration(CIFAR10, recipe)
    made = ours.quantized(graph, calibration.images, recipe)
    files = made.files(folder)
    runtimes = {}
    for runtime in RUNTIMES:
        fp32, int8 = (
            _classifier(f"{name} {runtime} {precision}", runtime, files[runtime, precision], recipe, data)
            for precision in ("fp32", "int8")
        )
        say(f"{name}: {runtime}")
        accuracy = judge(int8, data, fp32, calibrated=calibration.fingerprints)
        difference = accuracy.difference
        assert difference is not None  # it was judged beside fp32
        runtimes[runtime] = {
            "fp32": difference.expected.top1.to_json(),
            "int8": difference.got.top1.to_json(),
            "drop_points": difference.drop_points,
            "drop_interval_points": list(difference.drop_interval_points),
            "agreement": difference.agreement.to_json(),
            "sqnr_db": difference.sqnr_db,
        }
    return {"published_percent": published, "calibration_images": len(calibration), "runtimes": runtimes}


def _classifier(
    name: str, runtime: str, files: list[Path], recipe: Preprocess, data: LabelledSet
) -> Classifier:
    """A compiled file, known by its content and the runtime's version."""
    known_by = hashlib.sha256(f"{runtime} {[version_of(p) for p in backend(runtime).PACKAGES]}".encode())
    for file in files:
        known_by.update(file.read_bytes())
    return Classifier(
        name=name,
        identity=known_by.hexdigest(),
        load=partial(backend(runtime).load, files[0], load_target(runtime)),
        size_bytes=sum(file.stat().st_size for file in files),
        recipe=recipe,
        labels=None,
        outputs=len(data.classes),
    )


if __name__ == "__main__":
    main()
