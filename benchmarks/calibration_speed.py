"""Time and memory that int8 takes: MobileNetV2 calibrated on 100 images, ResNet-50 on 500.

    python benchmarks/calibration_speed.py

Each run is a process of its own, from its start to its end: imports, the network from its checkpoint, torch's
export, the photographs decoded from their files, calibration, and the int8 graph chosen and made. Its peak
memory is what the operating system counted (resident set). "Calibration and quantisation" is the part behind
the export, decoding of the photographs included. Nothing is compiled or checked.

MobileNetV2 has its ImageNet weights and the 100 photographs of ai-benchmark; ResNet-50 has random weights,
since its own are behind a URL, brought to scale as edgecnn does it, and 500 of the other photographs of
photos.py. Photographs longer than 500 pixels on the shorter side are scaled to that first, once: ImageNet's
are of that size.

A first round warms the disk's cache and is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
FOLDER = Path(__file__).resolve().parent
# Model, weights, set of photographs, how many.
CASES = (("mobilenet_v2", "imagenet", "calibration", 100), ("resnet50", "random", "photographs", 500))
LONGEST_SHORTER_SIDE = 500


def main() -> None:
    """Measure, write ``results/calibration_speed.json``, print the table."""
    import table
    from results import argument_parser, machine, say, write

    from edgecnn.versions import tool_versions

    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds [default: %(default)s]")
    parser.add_argument("--limit", type=int, help="so many photographs at most, and write no results")
    arguments = parser.parse_args()
    work = arguments.work.resolve()

    result: dict[str, Any] = {"machine": machine(), "versions": tool_versions(()), "cases": []}
    for model, weights, which, count in CASES:
        folder = _photographs(which, min(count, arguments.limit or count), work)
        runs = []
        for repeat in range(arguments.repeats + 1):
            run = _process(model, weights, folder)
            shown = f"{run['quantize_s']:.1f} s of {run['process_s']:.1f} s, {run['peak_bytes'] / 1e9:.2f} GB"
            say(f"{model}, round {repeat or 'before'}: {shown}")
            if repeat:
                runs.append(run)
        case = {"model": model, "weights": weights, "images": len(list(folder.iterdir())), "runs": runs}
        result["cases"].append(case)
    if arguments.limit is None:
        say(f"raw figures in {write('calibration_speed', result)}")
    print(table.calibration_speed(result))


def _photographs(which: str, count: int, work: Path) -> Path:
    """A folder of that many photographs of a set, none much larger than ImageNet's."""
    from photos import photos

    from edgecnn.data.images import open_image

    folder = work / "calibration" / f"{which}-{count}"
    found = photos(which, work / "photos")[:count]  # type: ignore[arg-type]
    assert len(found) == count
    folder.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(found):
        target = folder / f"{number:04d}.jpg"
        if not target.is_file():
            image = open_image(photo.path, 3)
            factor = min(1.0, LONGEST_SHORTER_SIDE / min(image.size))
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            image.resize(size).save(target, quality=90)
    return folder


def _process(model: str, weights: str, folder: Path) -> dict[str, float]:
    with tempfile.TemporaryFile("w+") as told:
        command = [sys.executable, __file__, "--child", model, weights, str(folder)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)} failed with status {process.returncode}")
        told.seek(0)
        inside: dict[str, float] = json.load(told)
    # Linux counts in KiB, macOS in bytes.
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {"process_s": took, "cpu_s": cpu_s, "peak_bytes": peak_bytes, **inside}


def _child(model: str, weights: str, folder: Path) -> None:
    import ours

    from edgecnn.data.images import list_images
    from edgecnn.graph.from_torch import export
    from edgecnn.quantize.quantize import prepare
    from edgecnn.zoo import build, make_spec, variant
    from edgecnn.zoo.weights import load_weights

    imported = time.perf_counter()
    spec = make_spec(model)
    network = build(spec)
    recipe = load_weights(spec, network, weights).preprocess
    graph = export(network, variant(spec), spec.input_shape)
    exported = time.perf_counter()
    prepared = prepare(graph, ours.calibration(recipe, list_images(folder)))
    prepared.qdq()
    done = time.perf_counter()
    told = {
        "import_s": imported - STARTED,
        "export_s": exported - imported,
        "quantize_s": done - exported,
        "sqnr_db": prepared.verdict.sqnr_db,
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
