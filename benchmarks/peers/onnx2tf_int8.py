"""A network to int8 TFLite with onnx2tf, in its own environment.

torch.onnx.export, then ``onnx2tf -oiqt``. With that option onnx2tf writes seven TFLite files (fp32, fp16,
dynamic range, int8 with float and with integer input and output, int16 activations twice) and has none for
fewer. ``model_integer_quant.tflite`` is the one to compare: int8 inside, float32 input and output.

onnx2tf looks for its sample images in the current folder before it downloads them, calibration data given
or not. The caller puts a file of that name there, so that no time goes into a download.
"""

from __future__ import annotations

import numpy as np
import onnx2tf
from network import arguments, export_onnx


def main() -> None:
    """Write the files of onnx2tf, ``model_float32.tflite`` and ``model_integer_quant.tflite`` among them."""
    given = arguments(__doc__)
    onnx_file = given.folder / "model.onnx"
    export_onnx(given, onnx_file)
    onnx2tf.convert(
        input_onnx_file_path=str(onnx_file),
        output_folder_path=str(given.folder),
        output_integer_quantized_tflite=True,
        # The images are normalised: mean 0 and deviation 1 leave them as they are.
        custom_input_op_name_np_data_path=[
            ["input", str(given.images), np.zeros(1, np.float32), np.ones(1, np.float32)]
        ],
        non_verbose=True,
    )


if __name__ == "__main__":
    main()
