"""A network of the zoo from its checkpoint, for converters whose environment has torch but not edgecnn."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch

# Needs torch and the standard library only.
from edgecnn.zoo import build, make_spec


def arguments(description: str | None) -> argparse.Namespace:
    """What every peer's script takes: ``model``, ``checkpoint``, ``images`` and ``folder``."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("model", help="name in edgecnn's zoo, with 224x224 inputs")
    parser.add_argument("checkpoint", type=Path, help="state dict under the names that the network has")
    parser.add_argument("images", type=Path, help=".npy of calibration inputs, float32 (N, 224, 224, 3)")
    parser.add_argument("folder", type=Path, help="where the files go")
    return parser.parse_args()


def network(given: argparse.Namespace) -> torch.nn.Module:
    """The network with a checkpoint's weights: logits (N, 1000) of images (N, 3, 224, 224)."""
    model = build(make_spec(given.model))
    model.load_state_dict(torch.load(given.checkpoint, weights_only=True))
    return model.eval()


def export_onnx(given: argparse.Namespace, path: Path) -> None:
    """Write the network as torch's tracing exporter gives it, the faster of the two."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network(given),
            (torch.zeros(1, 3, 224, 224),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
        )
