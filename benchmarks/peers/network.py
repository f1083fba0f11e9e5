"""MobileNetV2 from the checkpoint, for converters whose environment has torch but not edgecnn."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

from edgecnn.zoo.families.mobilenet_v2 import MobileNetV2


def arguments(description: str | None) -> argparse.Namespace:
    """What every peer's script takes: ``checkpoint``, ``images`` and ``folder``."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="state dict with torchvision's names")
    parser.add_argument("images", type=Path, help=".npy of calibration inputs, float32 (N, 224, 224, 3)")
    parser.add_argument("folder", type=Path, help="where the files go")
    return parser.parse_args()


def mobilenet_v2(checkpoint: Path) -> torch.nn.Module:
    """The network with a checkpoint's weights: logits (N, 1000) of images (N, 3, 224, 224)."""
    model = MobileNetV2(in_channels=3, classes=1000, width=1.0)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return model.eval()


def export_onnx(checkpoint: Path, path: Path) -> None:
    """Write the network as torch's tracing exporter gives it, the faster of the two."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            mobilenet_v2(checkpoint),
            (torch.zeros(1, 3, 224, 224),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
        )
