"""A network to int8 TFLite with litert-torch and ai-edge-quantizer, in their own environment.

The path of their guides: convert the torch module, calibrate the float file, quantise it statically with the
recipe ``static_wi8_ai8`` (weights a channel, activations a tensor). NHWC input, which their guide recommends,
and float32 input and output, as edgecnn's artifacts have. The float file is a by-product.
"""

from __future__ import annotations

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.qtyping import TFLOperationName
from network import arguments, network


def main() -> None:
    """Write ``float.tflite`` and ``int8.tflite``."""
    given = arguments(__doc__)
    model = litert_torch.to_channel_last_io(network(given), args=[0])
    float_file = str(given.folder / "float.tflite")
    litert_torch.convert(model, (torch.zeros(1, 224, 224, 3),)).export(float_file)

    quantize = quantizer.Quantizer(float_file)
    quantize.load_quantization_recipe(recipe.static_wi8_ai8())
    for edge in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantize.update_quantization_recipe(
            regex=".*", operation_name=edge, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    images = np.load(given.images)
    calibration = quantize.calibrate({"serving_default": [{"args_0": image[np.newaxis]} for image in images]})
    quantize.quantize(calibration).export_model(str(given.folder / "int8.tflite"), overwrite=True)


if __name__ == "__main__":
    main()
