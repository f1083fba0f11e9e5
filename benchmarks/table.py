"""The tables in this folder's README.md and the summary in the project's, made from results/*.json.

python benchmarks/table.py            writes them
python benchmarks/table.py --check    fails where one is stale
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Z_95 = 1.959964
LARGEST_PACKAGES = 12

Result = dict[str, Any]


def compile_time(result: Result) -> str:
    """Seconds of each converter, and of the lowering alone."""
    ours = statistics.median(result["seconds"]["edgecnn"])
    rows = []
    for name, samples in result["seconds"].items():
        median = statistics.median(samples)
        ratio = "" if name == "edgecnn" else f"{ours / median:.2f}"
        versions = result["versions"][name]
        shown = ", ".join(f"{package} {versions[package]}" for package in _NAMED[name] if package in versions)
        rows.append([name, shown, f"{median:.1f}", _listed(samples, 1), ratio])
    lowering = result["lowering_seconds"]
    text = _table(("converter", "versions", "median s", "rounds s", "edgecnn / it"), rows, result)
    return (
        f"{text}\n\nLowering alone, from the int8 graph to a TFLite file on disk: "
        f"{statistics.median(lowering) * 1e3:.0f} ms (median of {len(lowering)}; the slowest, "
        f"{max(lowering) * 1e3:.0f} ms)."
    )


_NAMED = {
    "edgecnn": ("torch", "nncf", "onnxruntime"),
    "litert-torch": ("torch", "litert-torch", "ai-edge-quantizer", "jax"),
    "onnx2tf": ("torch", "onnx2tf", "tensorflow"),
}


def int8_quality(result: Result) -> str:
    """Agreement and SQNR of each int8 path on both sets, and top-1 on the labelled photographs."""
    photos, fp32 = result["photos"], result["fp32"]
    large = [index for index, photo in enumerate(photos) if photo["shorter_side"] >= result["large_from"]]
    small = [index for index, photo in enumerate(photos) if photo["shorter_side"] < result["large_from"]]
    labelled = [index for index, photo in enumerate(photos) if photo["label"] is not None]

    def correct(top1: Sequence[int]) -> str:
        return f"{sum(top1[index] == photos[index]['label'] for index in labelled)} of {len(labelled)}"

    rows = [["fp32 graph", *[""] * 6, correct(fp32["top1"])]]
    for name, path in result["int8"].items():
        cells = []
        for indices in (large, small):
            agree = sum(path["top1"][index] == fp32["top1"][index] for index in indices)
            low, high = wilson(agree, len(indices))
            signal = sum(fp32["power"][index] for index in indices)
            noise = sum(path["noise"][index] for index in indices)
            ties = sum(path["tied"][index] for index in indices)
            cells += [
                f"{agree / len(indices):.1%} ({low:.1%} - {high:.1%})",
                str(ties),
                f"{10 * math.log10(signal / noise):.1f}",
            ]
        rows.append([name, *cells, correct(path["top1"])])
    margins = [statistics.median(fp32["margin"][index] for index in indices) for indices in (large, small)]
    header = (
        "path",
        f"agrees with fp32, {len(large)} photos >= {result['large_from']} px",
        "ties",
        "SQNR dB",
        f"agrees with fp32, {len(small)} enlarged 120x120",
        "ties",
        "SQNR dB",
        "top-1, labelled photos",
    )
    return (
        f"{_table(header, rows, result)}\n\nMedian margin between the first and the second class in fp32: "
        f"{margins[0]:.2f} logits on the photographs, {margins[1]:.2f} on the enlarged thumbnails."
    )


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    share, z2 = successes / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return (centre - half) / (1 + z2 / count), min(1.0, (centre + half) / (1 + z2 / count))


def latency(result: Result) -> str:
    """Ratio of edgecnn's latency to each peer's, by runtime and precision."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for pair in result["pairs"]:
        groups.setdefault((pair["runtime"], pair["precision"], pair["peer"]), []).append(pair)
    rows = []
    for (runtime, precision, peer), pairs in sorted(groups.items()):
        low, high = min(pair["ratio_low"] for pair in pairs), max(pair["ratio_high"] for pair in pairs)
        rows.append(
            [
                runtime,
                precision,
                peer if precision == "int8" else _FLOAT[peer],
                f"{statistics.median(pair['edgecnn']['p50_ms'] for pair in pairs):.2f}",
                f"{statistics.median(pair['other']['p50_ms'] for pair in pairs):.2f}",
                f"{statistics.median(pair['ratio'] for pair in pairs):.3f}",
                f"{low:.3f} - {high:.3f}",
            ]
        )
    header = ("runtime", "precision", "against", "edgecnn ms", "it ms", "edgecnn / it", "95 % intervals")
    return _table(header, rows, result)


_FLOAT = {
    "litert-torch": "litert-torch",
    "onnx2tf": "onnx2tf",
    "onnxruntime.quantization": "plain torch.onnx.export",
    "NNCF on OpenVINO": "openvino.convert_model",
}


def install_size(result: Result) -> str:
    """Megabytes of the largest packages, of the rest, and in all."""
    packages = list(result["packages"].items())
    shown, rest = packages[:LARGEST_PACKAGES], packages[LARGEST_PACKAGES:]
    rows = [[name, package["version"], _megabytes(package["size_bytes"])] for name, package in shown]
    rest_bytes = result["total_bytes"] - sum(package["size_bytes"] for _, package in shown)
    rows.append([f"{len(rest)} more packages, and the environment itself", "", _megabytes(rest_bytes)])
    rows.append(["**total**", "", f"**{_megabytes(result['total_bytes'])}**"])
    return _table(("package", "version", "MB"), rows, result)


def matrix(result: Result) -> str:
    """One row a network: for each precision and target the latency and size, or why there is none."""
    cells = {(cell["model"], cell["precision"], cell["target"]): cell for cell in result["cells"]}
    columns = [(precision, target) for precision in ("fp32", "int8") for target in _TARGETS]
    rows, reasons = [], []
    for model in dict.fromkeys(cell["model"] for cell in result["cells"]):
        row = [model]
        passed = [c for c in result["cells"] if c["model"] == model and c["status"] == "passed"]
        row.append(f"{passed[0]['macs'] / 1e6:,.0f}" if passed else "")
        for column in columns:
            cell = cells.get((model, *column))
            if cell is None:
                row.append("not run")
            elif cell["status"] == "passed":
                about = "" if cell["steady"] else "about "
                row.append(f"{about}{cell['p50_ms']:.3g} ms, {cell['size_bytes'] / 1e6:.3g} MB")
            else:
                reasons.append(f"- {model}, {' '.join(column)}: {cell['status']}: {cell['reason']}")
                row.append(f"**{cell['status']}**")
        sqnr = [c["sqnr_db"] for c in passed if c["sqnr_db"] is not None]
        rows.append([*row, f"{sqnr[0]:.1f}" if sqnr else ""])
    header = ("network", "M MACs", *(" ".join(column) for column in columns), "int8 SQNR dB")
    counts = {status: sum(cell["status"] == status for cell in result["cells"]) for status in _STATUSES}
    total = ", ".join(f"{count} {status}" for status, count in counts.items())
    listed = "\n" + "\n".join(reasons) + "\n" if reasons else ""
    return f"{_table(header, rows, result)}\n\n{len(result['cells'])} cells: {total}.\n{listed}".rstrip()


_TARGETS = ("tflite", "openvino", "onnxruntime")
_STATUSES = ("passed", "refused", "crashed")

TABLES: dict[str, Callable[[Result], str]] = {
    "matrix": matrix,
    "compile_time": compile_time,
    "int8_quality": int8_quality,
    "latency": latency,
    "install_size": install_size,
}


def summary(results: dict[str, Result]) -> str:
    """int8 TFLite files of MobileNetV2 by three converters, for the project's README."""
    seconds, quality = results["compile_time"]["seconds"], results["int8_quality"]
    large = [i for i, photo in enumerate(quality["photos"]) if photo["shorter_side"] >= quality["large_from"]]
    power = sum(quality["fp32"]["power"][i] for i in large)
    titles = ("from checkpoint to file, whole process", "same top-1 as fp32", "SQNR", "latency, 1 thread")
    rows = [[title] for title in titles]
    for name in ("edgecnn", "litert-torch", "onnx2tf"):
        judged = quality["int8"][f"{name}: tflite"]
        agree = sum(judged["top1"][i] == quality["fp32"]["top1"][i] for i in large) / len(large)
        noise = sum(judged["noise"][i] for i in large)
        rows[0].append(f"{statistics.median(seconds[name]):.1f} s")
        rows[1].append(f"{agree:.1%}")
        rows[2].append(f"{10 * math.log10(power / noise):.1f} dB")
        side = "edgecnn" if name == "edgecnn" else "other"
        pairs = results["latency"]["pairs"]
        pairs = [pair for pair in pairs if (pair["runtime"], pair["precision"]) == ("tflite", "int8")]
        p50_ms = [pair[side]["p50_ms"] for pair in pairs if name in ("edgecnn", pair["peer"])]
        rows[3].append(f"{statistics.median(p50_ms):.2f} ms")
    header = ("MobileNetV2 1.0-224, int8 TFLite", "edgecnn", "litert-torch + ai-edge-quantizer", "onnx2tf")
    table = _table(header, rows, results["int8_quality"])
    return f"{table} Judged on {len(large)} views of photographs that calibration never saw."


def fill(readme: str, texts: dict[str, str]) -> str:
    """A page with each text between its two marks."""
    for name, text in texts.items():
        place = re.compile(rf"<!-- {name} -->\n.*?<!-- end -->", re.DOTALL)
        filled = f"<!-- {name} -->\n{text}\n<!-- end -->"
        readme, found = place.subn(lambda _, filled=filled: filled, readme)
        if found != 1:
            sys.exit(f"a page has {found} places for the table {name}, not 1")
    return readme


def main() -> None:
    """Fill in or check both pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail where a page is stale, write nothing")
    arguments = parser.parse_args()
    results = {
        name: json.loads((FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in TABLES
    }
    pages = {
        FOLDER / "README.md": {name: render(results[name]) for name, render in TABLES.items()},
        FOLDER.parent / "README.md": {"results": summary(results)},
    }
    for path, texts in pages.items():
        current = path.read_text(encoding="utf-8")
        filled = fill(current, texts)
        if arguments.check and filled != current:
            sys.exit(f"{path.relative_to(FOLDER.parent)} is stale: run python benchmarks/table.py")
        if not arguments.check:
            path.write_text(filled, encoding="utf-8")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], result: Result) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    machine = result["machine"]
    gigabytes = machine["memory_bytes"] / 2**30
    host = f"{machine['cpu_model']}, {machine['cpu_count']} cores, {gigabytes:.0f} GiB, {machine['os']}"
    when = f"{machine['measured_at']}, load average {machine['load_before']} at the start"
    return "\n".join([*lines, "", f"{host}, Python {machine['python']}, {when}."])


def _listed(values: Iterable[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f}"


if __name__ == "__main__":
    main()
