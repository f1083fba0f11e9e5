"""Makes the weights that travel with edgecnn: five small networks trained on CIFAR-10 by ``edgecnn.train``.

    python benchmarks/train_cifar10.py

Each network learns from the 50,000 training images alone; the 10,000 test images only judge it. The two
widest learn from the answers of a ResNet-56 too (resnet56_cifar10.py), which learnt from the same
images. What is kept is stored in 16-bit floats as ``edgecnn/zoo/trained/<variant>-cifar10.safetensors``,
and the accuracy in it and in the results is that of the stored file. A training that was interrupted
goes on when the script is run again.

On two cores it takes some hours, on a GPU minutes; the results say on what each was trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import resnet56_cifar10
import torch
from results import RESULTS, argument_parser, machine, say, write

import edgecnn
from edgecnn.accuracy.evaluate import evaluate_float
from edgecnn.progress import Progress
from edgecnn.spec import ModelSpec
from edgecnn.training.loop import Teacher
from edgecnn.training.train import RECORD, WEIGHTS, save_weights
from edgecnn.zoo import build, make_spec, variant
from edgecnn.zoo.weights import load_weights

SHIPPED = Path(edgecnn.__file__).parent / "zoo" / "trained"
MOST_BYTES = 14_000_000
# What a training that goes on with another's weights has as one from scratch, not as one for other classes.
AGAIN: dict[str, Any] = {
    "freeze": 0,
    "batch": 128,
    "optimizer": "sgd",
    "first_layer_rate": 1.0,
    "weight_decay": 5e-4,
    "ema_steps": 200,
}
# Network, width, the recipe's choices of each training, the next begins with the weights of the one before,
# and the accuracy asked of it, in percent. "distill" is with the teacher.
NETWORKS: tuple[tuple[str, float, list[dict[str, Any]], float], ...] = (
    ("mobilenet_v1_cifar", 0.25, [{"epochs": 40, "learning_rate": 0.4}], 85.0),
    ("resnet20_cifar", 1.0, [{"epochs": 36, "learning_rate": 0.2, "label_smoothing": 0.0}], 90.5),
    ("mobilenet_v1_cifar", 0.5, [{"epochs": 50, "learning_rate": 0.4, "label_smoothing": 0.0}], 89.0),
    (
        "mobilenet_v1_cifar",
        0.75,
        [
            {"epochs": 44, "batch": 64, "learning_rate": 0.2, "label_smoothing": 0.0, "ema_steps": 400},
            {"epochs": 26, "learning_rate": 0.2, "distill": True, **AGAIN},
        ],
        91.0,
    ),
    ("mobilenet_v1_cifar", 1.0, [{"epochs": 50, "learning_rate": 0.2, "distill": True}], 92.0),
)


def main() -> None:
    """Train what is not trained yet, store and judge it, write ``results/train_cifar10.json``."""
    import table

    parser = argument_parser(__doc__)
    parser.add_argument("--only", help="networks whose file name begins so; other results stay", default="")
    arguments = parser.parse_args()
    rows = {row["network"]: row for row in _results()}
    for name, width, trainings, asked_percent in NETWORKS:
        spec = make_spec(name, width=width)
        if not variant(spec).startswith(arguments.only):
            continue
        folder = arguments.work.resolve() / "cifar10" / variant(spec)
        records: list[dict[str, Any]] = []
        start = None
        for number, choices in enumerate(trainings, 1):
            place = folder if number == len(trainings) else folder.with_name(f"{folder.name}-{number}")
            records.append(_trained(spec, place, start=start, **choices))
            start = place / WEIGHTS
        row = _stored(spec, folder, records) | {"asked_percent": asked_percent}
        rows[variant(spec)] = row
        say(f"{variant(spec)}: {row['top1_percent']:.2f} % (asked: {asked_percent} %)")
    total = sum(row["bytes"] for row in rows.values())
    assert total <= MOST_BYTES, total
    path = write("train_cifar10", {"machine": machine(), "networks": sorted(rows.values(), key=_name)})
    say(f"wrote {path}")
    print(table.trained(json.loads(path.read_text(encoding="utf-8"))))


def _results() -> list[dict[str, Any]]:
    path = RESULTS / "train_cifar10.json"
    return json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else []


def _name(row: dict[str, Any]) -> str:
    return str(row["network"])


def _trained(spec: ModelSpec, folder: Path, **choices: Any) -> dict[str, Any]:
    """The record of a training, once it is done; ``choices`` are arguments of ``train``."""
    if choices.pop("distill", False):
        choices["distill"] = Teacher(resnet56_cifar10.resnet56(), resnet56_cifar10.RECIPE)
    if not (folder / RECORD).exists():
        edgecnn.train(
            spec.name,
            "cifar10",
            width=spec.width,
            **choices,
            output=folder,
            progress=_lines(variant(spec)),
        )
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return record


def _stored(spec: ModelSpec, folder: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Store the weights in 16 bits, with the accuracy that they have so."""
    record = records[-1]
    network = build(spec)
    loaded = load_weights(spec, network, str(folder / WEIGHTS))
    assert loaded.labels is not None
    path = SHIPPED / f"{variant(spec)}-cifar10.safetensors"
    save_weights(path, network, spec, loaded.preprocess, loaded.labels, record, torch.float16)
    accuracy = evaluate_float(spec.name, "cifar10:test", width=spec.width, weights=str(path))
    top1_percent = 100 * accuracy.answers.top1.value
    stored = record | {"top1_percent": top1_percent}
    save_weights(path, network, spec, loaded.preprocess, loaded.labels, stored, torch.float16)
    low, high = accuracy.answers.top1.interval
    return {
        "network": variant(spec),
        "top1_percent": top1_percent,
        "top1_interval_percent": [100 * low, 100 * high],
        "fp32_top1_percent": record["top1_percent"],
        "images": accuracy.images,
        "bytes": path.stat().st_size,
        "recipes": [each["recipe"] for each in records],
        "seconds": sum(each["seconds"] for each in records),
        "curve_percent": [epoch["top1_percent"] for each in records for epoch in each["epochs"]],
        "trained_on": record["machine"],
        "trained_with": record["versions"],
    }


def _lines(name: str) -> Progress:
    """A line an epoch."""
    last = ""

    def progress(description: str, done: float, total: float | None) -> None:
        nonlocal last
        epoch = description.partition(",")[0]
        if epoch != last:
            last = epoch
            say(f"{name}: {description}")

    return progress


if __name__ == "__main__":
    main()
