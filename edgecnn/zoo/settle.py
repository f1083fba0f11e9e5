"""The scale of every layer, for networks with random weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgecnn.data.labelled import FilePictures, Inputs
from edgecnn.data.sets import calibration_images
from edgecnn.spec import Preprocess

# Enough for one number a layer, and less than a second's work for large networks. Of smaller images, whose
# last maps are a pixel, it takes more: as many pixels in all as four images of this side have.
_LEAST_IMAGES = 4
_SIDE = 160
# Of the biases, against activations of power 1. Without them a network of SiLUs, which halve what is small
# and keep what is large, blows the contrast of two images up with each layer, in EfficientNet-B0 by 10 000.
_BIAS = 0.3


def settle_batch_norm(model: nn.Module, recipe: Preprocess, seed: int = 0) -> None:
    """Give every BatchNorm2d that runs the mean power of its input as its variance, and biases, in place.

    A batch norm that has seen no data passes everything on as it is: behind a hundred layers of random
    weights nothing is left between 0 and infinity that could be quantised or compared. So each layer's output
    is brought to power 1 on some of the shipped photographs, one layer after the other (layer-sequential unit
    variance, Mishkin and Matas 2015, arXiv:1511.06422). One number a layer: statistics of each channel, with
    its mean taken away, make random networks chaotic (Yang et al. 2019, arXiv:1902.08129), so that rounding
    to int8 drowns them. Networks without batch norm stay as they are.

    Args:
        model: in eval mode; it stays so.
        recipe: how a photograph becomes its input.
        seed: of the biases.
    """

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_var = inputs[0].square().mean().expand(norm.num_features).clone()

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    generator = torch.Generator().manual_seed(seed)
    for norm in norms:
        if norm.affine:
            nn.init.normal_(norm.bias, 0.0, _BIAS, generator)
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over several threads depend, in their last bits, on how many there are
    try:
        with torch.no_grad():
            model(torch.as_tensor(_photographs(recipe)))
    finally:
        torch.set_num_threads(threads)
        for hook in hooks:
            hook.remove()


def _photographs(recipe: Preprocess) -> np.ndarray:
    """Inputs (N, C, H, W), spread evenly over the calibration photographs."""
    height, width = recipe.crop
    paths = calibration_images()
    count = min(max(_LEAST_IMAGES, _LEAST_IMAGES * _SIDE**2 // (height * width)), len(paths))
    chosen = tuple(paths[index * len(paths) // count] for index in range(count))
    return np.concatenate(list(Inputs(FilePictures(chosen), recipe)))
