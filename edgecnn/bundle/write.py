"""Everything in a bundle beside the model: labels, preprocessing, script, manifest, a page for people."""

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
| output | `{output_name}`, {output_shape}, {output_dtype}{labels} |
| size | {size} |
| parameters, multiply-accumulates | {params:,}, {macs:,} |
| made by | edgecnn {version}: `{command}` |

## Try it

    pip install numpy pillow {packages}
    python run.py photo.jpg

`run.py` needs nothing else and shows how the model is fed. `manifest.json` holds the hash of every file here,
the versions of all tools, and the figures of the checks below.

## What was checked

{checks}

{measured}
"""

_MAKE_ONE = "make one with `edgecnn export`"

_MANIFEST_TYPES = {
    "variant": str,
    "target": str,
    "runtime": str,
    "device": str,
    "options": dict,
    "precision": str,
    "model_file": str,
    "companion_files": list,
    "macs": int,
    "params": int,
    "weights": dict,
    "output": dict,
    "command": list,
    "files": dict,
}
"""What `read` needs of a manifest."""

_CHECK_METRICS = {
    "max_abs_relative": "largest difference {value:.2g} of the largest output (limit {limit:g})",
    "mean_abs_steps": "mean difference {value:.2f} steps of the output's scale (limit {limit:g})",
    "sqnr_db": "signal to quantisation noise {value:.1f} dB (floor {limit:g})",
}


def describe_check(check: dict[str, Any]) -> str:
    """One line about a check, for people."""
    figure = _CHECK_METRICS[check["metric"]].format(**check)
    agree = round(check["top1_agreement"] * check["images"])
    same = f"same top-1 on {agree} of {check['images']} images"
    return f"{check['stage']} against {check['against']}: {figure}, {same}"


def write_files(
    folder: Path,
    manifest: dict[str, Any],
    size_bytes: int,
    preprocess: dict[str, Any],
    labels: tuple[str, ...] | None,
    packages: tuple[str, ...],
) -> None:
    """Complete a folder that holds the model files: every other file of the bundle, the manifest last.

    Args:
        folder: holds the model files, and of int8 the report.
        manifest: all of the manifest but ``files``.
        size_bytes: of the model files.
        preprocess: the recipe for ``preprocess.json``.
        labels: class names, None where they are not known.
        packages: what the receiver installs to run the model.
    """
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
        labels=_meaning(manifest["output"], labels),
        size=describe_size(size_bytes),
        params=manifest["params"],
        macs=manifest["macs"],
        version=manifest["versions"]["edgecnn"],
        command=shlex.join(manifest["command"]),
        checks="\n".join(f"- {describe_check(check)}" for check in manifest["checks"]),
        measured=describe_measured(manifest),
    )
    # The command may name a path whose bytes are not text.
    (folder / "README.md").write_text(page, encoding="utf-8", errors="backslashreplace")
    files = {
        path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    write_json(folder / "manifest.json", {**manifest, "files": files})


def _meaning(output: dict[str, Any], labels: tuple[str, ...] | None) -> str:
    if output["layout"] is not None:
        return f", {output['layout']}"
    if len(output["shape"]) != 2:
        return ""
    return ": one value a class" + (", named in labels.txt" if labels is not None else "")


def describe_weights(weights: dict[str, Any]) -> str:
    """One sentence on what the network was trained on, or that it was not."""
    if weights["random"]:
        return "RANDOM WEIGHTS, untrained: good for latency, meaningless for accuracy."
    parts = [weights["description"]]
    if weights["top1_percent"] is not None:
        top1, resolution = weights["top1_percent"], weights["trained_resolution"]
        source = weights["top1_source"]
        parts.append(
            f"top-1 {top1:.4g} % on {source}"
            if source
            else f"published top-1 {top1:.4g} % at {resolution} pixels"
        )
    if weights["licence"]:
        parts.append(f"licence {weights['licence']}")
    return ", ".join(parts) + "."


def describe_measured(manifest: dict[str, Any]) -> str:
    """One sentence on the quick measurement."""
    measured = manifest["measured"]
    if measured is None:
        why = manifest["not_measured"]
        return "Not measured." if why is None else f"Not measured: {why}."
    threads = f"{measured['threads']} thread{'s' * (measured['threads'] > 1)}"
    about = f"{threads}, {measured['cpu_model'] or measured['cpu_arch']}"
    if manifest["device"] != "local":
        about = f"{about}, {measured['device']}"
    if not measured["steady"]:
        return f"Latency about {measured['p50_ms']:.2g} ms ({about}), but {measured['reason']}."
    return (
        f"Latency {describe_ms(measured['p50_ms'])} ms median, {describe_ms(measured['p90_ms'])} ms p90 "
        f"({about}), {measured['gmacs_per_s']:.0f} GMAC/s."
    )


def describe_ms(duration_ms: float) -> str:
    """A duration in milliseconds with four digits, without the unit."""
    return f"{duration_ms:.4g}" if duration_ms < 1000 else f"{duration_ms:.0f}"


def describe_size(size_bytes: int) -> str:
    """A file size in MB, or in kB where it is smaller than one."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def read(folder: Path) -> Artifact:
    """The artifact in a bundle's folder, every file's hash checked.

    Raises:
        ConfigError: not a bundle, or files that are missing or have changed since they were written.
    """
    manifest = read_manifest(folder)
    for name, recorded in manifest["files"].items():
        try:
            intact = sha256_of(folder / name) == recorded["sha256"]
        except OSError:
            intact = False
        if not intact:
            raise ConfigError(
                f"{folder / name} is missing or has changed since it was written",
                hint="export the bundle again with --force",
            )
    return Artifact(
        path=folder,
        variant=manifest["variant"],
        target=manifest["target"],
        runtime=manifest["runtime"],
        device=manifest["device"],
        options=manifest["options"],
        precision=manifest["precision"],
        model=folder / manifest["model_file"],
        companions=tuple(folder / name for name in manifest["companion_files"]),
        macs=manifest["macs"],
        manifest=manifest,
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, its fields of the types they should have; no file is looked at.

    Raises:
        ConfigError: no manifest, or one that edgecnn has not written.
    """
    path = folder / "manifest.json"
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder} is not a bundle: it has no {path.name} that can be read", hint=_MAKE_ONE
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{folder} is not a bundle: {path.name} is damaged", hint=_MAKE_ONE) from error
    if not isinstance(manifest, dict) or not all(
        isinstance(manifest.get(name), kind) for name, kind in _MANIFEST_TYPES.items()
    ):
        raise ConfigError(f"{folder} is not a bundle: {path.name} is not edgecnn's", hint=_MAKE_ONE)
    files = manifest["files"]
    # A name that leads elsewhere would have other files read; a model without a hash could be any model.
    if not (
        all(map(_is_plain, files))
        and all(isinstance(recorded, dict) and "sha256" in recorded for recorded in files.values())
        and {manifest["model_file"], *map(str, manifest["companion_files"])} <= set(files)
    ):
        raise ConfigError(f"{folder} is not a bundle: {path.name} lists its files wrongly", hint=_MAKE_ONE)
    return manifest


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON, in ASCII: a path in it may hold bytes that are not text."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
