"""Everything in a bundle beside the model: labels, preprocessing, script, manifest, a page for its receiver."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from edgecnn.artifact import Artifact
from edgecnn.errors import ConfigError

_README = """\
# {variant} for {target}, {precision}

{weights}

| | |
|---|---|
| runtime | {runtime}: `pip install {packages}` |
| input | `{input_name}`, {input_shape} {input_layout}, {input_dtype}; prepared as preprocess.json says |
| output | `{output_name}`, {output_shape}, {output_dtype}: one logit a class{labels} |
| size | {size_mb:.1f} MB |
| parameters, multiply-accumulates | {params:,}, {macs:,} |
| made by | edgecnn {version}: `{command}` |

## Try it

    pip install numpy pillow {packages}
    python run.py photo.jpg

`run.py` needs nothing else and shows how the model is fed. `manifest.json` holds the hash of every file here, the
versions of all tools, and the figures of the checks below.

## What was checked

{checks}

{measured}
"""

_CHECK_METRICS = {
    "max_abs_relative": "largest difference {value:.2g} of the largest output (limit {limit:g})",
    "mean_abs_steps": "mean difference {value:.2f} steps of the output's scale (limit {limit:g})",
    "sqnr_db": "signal to quantisation noise {value:.1f} dB (floor {limit:g})",
}


def describe_check(check: dict[str, Any]) -> str:
    """One line about a check, for people."""
    figure = _CHECK_METRICS[check["metric"]].format(**check)
    agree = round(check["top1_agreement"] * check["images"])
    return f"{check['stage']} against {check['against']}: {figure}, same top-1 on {agree} of {check['images']} images"


def write_files(folder: Path, manifest: dict[str, Any], preprocess: dict[str, Any], labels: tuple[str, ...] | None,
                packages: tuple[str, ...]) -> None:  # fmt: skip
    """Complete a folder that holds the model files: every other file of the bundle, the manifest last.

    Args:
        folder: holds the model files and nothing else.
        manifest: all of the manifest but ``files``.
        preprocess: the recipe for ``preprocess.json``.
        labels: class names, None where they are not known.
        packages: what the receiver installs to run the model.
    """
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    write_json(folder / "preprocess.json", preprocess)
    if labels is not None:
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("run.py"), folder / "run.py")
    page = _README.format(
        variant=manifest["variant"],
        target=manifest["target"],
        precision=manifest["precision"],
        weights=describe_weights(manifest["weights"]),
        runtime=manifest["runtime"],
        packages=" ".join(packages),
        input_name=manifest["input"]["name"],
        input_shape=" x ".join(map(str, manifest["input"]["shape"])),
        input_layout=manifest["input"]["layout"],
        input_dtype=manifest["input"]["dtype"],
        output_name=manifest["output"]["name"],
        output_shape=" x ".join(map(str, manifest["output"]["shape"])),
        output_dtype=manifest["output"]["dtype"],
        labels=", named in labels.txt" if labels is not None else "",
        size_mb=size_bytes / 1e6,
        params=manifest["params"],
        macs=manifest["macs"],
        version=manifest["versions"]["edgecnn"],
        command=shlex.join(manifest["command"]),
        checks="\n".join(f"- {describe_check(check)}" for check in manifest["checks"]),
        measured=describe_measured(manifest["measured"]),
    )
    (folder / "README.md").write_text(page, encoding="utf-8")
    files = {
        path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    write_json(folder / "manifest.json", {**manifest, "files": files})


def describe_weights(weights: dict[str, Any]) -> str:
    """One sentence on what the network was trained on, or that it was not."""
    if weights["random"]:
        return "RANDOM WEIGHTS, untrained: good for latency, meaningless for accuracy."
    parts = [weights["description"]]
    if weights["top1_percent"] is not None:
        parts.append(f"published top-1 {weights['top1_percent']:g} % at {weights['trained_resolution']} pixels")
    if weights["licence"]:
        parts.append(f"licence {weights['licence']}")
    return ", ".join(parts) + "."


def describe_measured(measured: dict[str, Any] | None) -> str:
    """One sentence on the quick measurement."""
    if measured is None:
        return "Not measured."
    about = f"{measured['threads']} thread, {measured['cpu_model'] or measured['cpu_arch']}"
    if not measured["steady"]:
        return f"Latency about {measured['p50_ms']:.2g} ms ({about}), but {measured['reason']}."
    return (
        f"Latency {measured['p50_ms']:.2f} ms median, {measured['p90_ms']:.2f} ms p90 ({about}), "
        f"{measured['gmacs_per_s']:.0f} GMAC/s."
    )


def read(folder: Path) -> Artifact:
    """The artifact in a bundle's folder, every file's hash checked.

    Raises:
        ConfigError: not a bundle, or files that are missing or have changed since they were written.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = manifest["files"]
        artifact = Artifact(
            path=folder,
            variant=manifest["variant"],
            target=manifest["target"],
            runtime=manifest["runtime"],
            options=manifest["options"],
            precision=manifest["precision"],
            model=folder / manifest["model_file"],
            companions=tuple(folder / name for name in manifest["companion_files"]),
            macs=manifest["macs"],
            manifest=manifest,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder} is not a bundle: {path.name} is missing or damaged", hint="make one with `edgecnn export`"
        ) from error
    for name, recorded in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != recorded["sha256"]:
            raise ConfigError(
                f"{folder}/{name} is missing or has changed since it was written",
                hint="export the bundle again with --force",
            )
    return artifact


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
