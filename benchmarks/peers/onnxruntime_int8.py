"""A network to int8 ONNX with ONNX Runtime's own quantiser, in an environment of its own.

torch.onnx.export, ONNX Runtime's pre-processing, then ``quantize_static``: QDQ, uint8 activations, int8
weights a channel, ranges by minimum and maximum: its fastest setting on x86 CPUs with VNNI, where s8s8 and
u8u8 take 1.7 and 2.5 times as long. The float file is the plain export.
"""

from __future__ import annotations

import numpy as np
from network import arguments, export_onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Images(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        if image is None:
            return None
        return {"input": np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis])}


def main() -> None:
    """Write ``float.onnx`` and ``int8.onnx``."""
    given = arguments(__doc__)
    float_file, prepared = str(given.folder / "float.onnx"), str(given.folder / "prepared.onnx")
    export_onnx(given, given.folder / "float.onnx")
    quant_pre_process(float_file, prepared)
    quantize_static(
        prepared,
        str(given.folder / "int8.onnx"),
        _Images(np.load(given.images)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


if __name__ == "__main__":
    main()
