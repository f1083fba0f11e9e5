"""``edgecnn export``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from edgecnn.artifact import Artifact
from edgecnn.cli.console import json_option, load_torch, print_json, print_line, progress_bar
from edgecnn.cli.parameters import (
    accuracy_options,
    check_request,
    complete_model,
    complete_target,
    precision_options,
    shape_options,
    weights_options,
)
from edgecnn.errors import BudgetError


@click.command(short_help="Export a network: compiled, checked, measured.")
@click.argument("model", shell_complete=complete_model)
@click.option("--target", "targets", multiple=True, shell_complete=complete_target, metavar="NAME|FILE.toml",
              help="Where it will run; give it again for more targets.  [required]")  # fmt: skip
@precision_options
@accuracy_options
@shape_options
@weights_options
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), metavar="DIR",
              help="Folder in which the bundle is made.  [default: here]")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
@json_option
def export(
    model: str,
    targets: tuple[str, ...],
    precision: str,
    calibration: str | None,
    data: str | None,
    max_drop: float | None,
    min_agreement: float | None,
    search: bool,
    time_budget_s: float | None,
    portable: bool,
    output: Path,
    force: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Export MODEL to a checked bundle for each target.

    MODEL is a name of `edgecnn zoo`, torchvision:NAME or timm:NAME where these are installed, an .onnx file,
    or file.py:function, a function without arguments that returns a torch.nn.Module.

    A bundle is a folder <model>-<width>-<resolution>-<target>-<precision> with the model file, run.py,
    which classifies an image with it, and manifest.json, which says how it was made and what was checked. An
    int8 bundle has a report.html that explains it. Where an accuracy budget cannot be met, the best that was
    found is saved as <bundle>-over-budget, and the exit code is 3.

    \b
    edgecnn export mobilenet --target tflite
    edgecnn export mobilenet --target tflite --target openvino --precision int8 -o build
    edgecnn export mobilenet --target tflite --precision int8 --data photos/ --max-drop 0.5
    edgecnn export mobilenet_v1 --width 0.5 --resolution 160 --weights random --target onnxruntime
    edgecnn export resnet18 --weights mine.pth --classes 7 --target tflite
    edgecnn export my_net.onnx --preprocess unit --calibration photos/ --precision int8 --target tflite
    edgecnn export my_net.py:make --input-shape 1,3,96,160 --target openvino
    """
    request = check_request(model, targets, precision, source)
    with progress_bar() as progress:
        load_torch(progress)
        # It and the runtimes are imported here, not for --help.
        from edgecnn import pipeline

        missed = None
        try:
            artifacts = pipeline.export(
                model,
                targets,
                precision=precision,
                **source,
                calibration=calibration,
                data=data,
                max_drop=max_drop,
                min_agreement=min_agreement,
                time_budget_s=time_budget_s,
                search=search,
                portable=portable,
                output=output,
                force=force,
                progress=progress,
            )
        except BudgetError as error:
            artifacts, missed = error.artifacts, error
    if as_json:
        print_json([{"path": str(artifact.path), **artifact.manifest} for artifact in artifacts])
    else:
        if request.kind == "zoo" and request.name != model:
            click.echo(f"{model} is {request.name}")
        _print_source(artifacts[0])
        for artifact in artifacts:
            _print_artifact(artifact)
    if missed is not None:
        raise missed


def _print_source(artifact: Artifact) -> None:
    from edgecnn.bundle.write import describe_check, describe_weights

    manifest = artifact.manifest
    print_line(
        "model",
        f"{artifact.variant}: {manifest['params']:,} parameters, {artifact.macs / 1e6:,.1f} M MACs "
        f"({2 * artifact.macs / 1e6:,.1f} MFLOPs)",
    )
    for note in manifest["notes"]:
        print_line("note", note)
    print_line("weights", describe_weights(manifest["weights"]))
    trained, used = manifest["weights"]["trained_resolution"], manifest["model"]["input_shape"][2]
    if trained and trained != used:
        print_line("", f"trained at {trained} pixels, used at {used}: accuracy will differ")
    if manifest.get("calibration"):
        print_line("calibrated", f"on {manifest['calibration']['images']} images")
        for remark in manifest["calibration"]["remarks"]:
            print_line("note", remark)
    for entry in manifest["checks"][:-1]:
        print_line("checked", describe_check(entry))


def _print_artifact(artifact: Artifact) -> None:
    from edgecnn.bundle.write import describe_check, describe_measured, describe_size

    manifest = artifact.manifest
    size = describe_size(sum(path.stat().st_size for path in (artifact.model, *artifact.companions)))
    script = shlex.quote(str(artifact.path / "run.py"))
    click.echo()
    print_line(artifact.target, describe_check(manifest["checks"][-1]))
    print_line("", describe_measured(manifest))
    for verdict in ("search", "guard", "payoff", "portability"):
        if manifest.get(verdict):
            print_line("", f"{verdict}: {manifest[verdict]['verdict']}.")
    print_line("", f"{artifact.path}/ ({size}), try: python {script} photo.jpg")
