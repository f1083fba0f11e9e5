"""What ``benchmark_model`` prints, in each form that it had."""

from __future__ import annotations

import pytest

from edgecnn.devices.android.benchmark_model import failure, parse

UNTIL = "seconds but terminate if exceeding 150 seconds."

# TensorFlow Lite of 2024 and LiteRT.
TODAY = f"""\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [4]
INFO: Graph: [model.tflite]
INFO: Signature to run: []
INFO: Loaded model model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 16.9008
INFO: Initialized session in 12.75ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 {UNTIL}
INFO: count=37 first=14744 curr=15520 min=13164 max=18295 avg=13764.3 std=967 p5=13200 median=13700 p95=15520

INFO: Running benchmark for at least 50 iterations and at least 1 {UNTIL}
INFO: count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13150 median=13402 p95=14800

INFO: Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 13764.3, Inference (avg): 1
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the
INFO: Memory footprint delta from the start of the tool (MB): init=4.5 overall=31.25
"""

# TensorFlow 2.4: no prefix, no percentiles, another word for the memory.
OF_2020 = f"""\
STARTING!
Loaded model yolov5s.tflite
The input model file size (MB): 30.1
Initialized session in 16.242ms.
Running benchmark for at least 1 iterations and at least 0.5 {UNTIL}
count=2 first=360262 curr=248911 min=248911 max=360262 avg=304586 std=55675

Running benchmark for at least 50 iterations and at least 1 {UNTIL}
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
Peak memory footprint (MB): init=4.92969 overall=138.809
"""

# LiteRT's own program: the same class, another summary.
LITERT = f"""\
INFO: Log parameter values verbosely: [0]
INFO: [litert_model.cc:12] Loading model from: model.tflite
INFO: The input model file size (MB): 4.1
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 {UNTIL}
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 3 iterations and at least 1 {UNTIL}
INFO: count=3 curr=1240143(all same) p5=1240143 median=1240143 p95=1240143

INFO: [benchmark_litert_model.h:92]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:94] Model initialization: 5.58 ms
"""


def test_the_form_of_today() -> None:
    report = parse(TODAY)
    assert (report.load_ms, report.warmup.first_ms, report.memory_mb) == (12.75, 14.744, 31.25)
    assert report.delegates == ("XNNPACK",)
    timed = report.timed
    assert (timed.count, timed.first_ms, timed.min_ms, timed.max_ms) == (74, 14.85, 13.105, 15.765)
    assert (timed.p5_ms, timed.typical_ms, timed.p95_ms) == (13.15, 13.402, 14.8)
    assert timed.mean_ms == pytest.approx(13.5202)
    assert timed.seconds == pytest.approx(74 * 13.5202e-3)


def test_before_percentiles_the_mean_is_all_there_is() -> None:
    report = parse(OF_2020)
    assert report.timed.median_ms is None
    assert report.timed.typical_ms == report.timed.mean_ms == 249.684
    assert (report.load_ms, report.warmup.first_ms, report.memory_mb) == (16.242, 360.262, 138.809)


def test_runs_of_one_duration_are_printed_as_the_newest_alone() -> None:
    report = parse(LITERT)
    assert (report.load_ms, report.warmup.count, report.warmup.first_ms) == (5.579, 1, 1357.602)
    assert (report.timed.count, report.timed.min_ms, report.timed.typical_ms) == (3, 1240.143, 1240.143)
    assert report.memory_mb is None


def test_a_mean_in_scientific_notation() -> None:
    line = "count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565"
    old = OF_2020.replace("count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442", line)
    assert parse(old).timed.mean_ms == pytest.approx(1240.27)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TODAY[: TODAY.index("INFO: Running benchmark for at least 50")],
        TODAY.replace("Initialized session", "Something"),
        TODAY.replace("count=74 first=14850 curr=13315", "count=0"),
        TODAY.replace("count=74 first=14850 curr=13315", "count=74 first=14850"),
    ],
)
def test_what_is_not_the_whole_of_a_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no r"):
        parse(text)


@pytest.mark.parametrize(
    ("status", "said", "words", "hint"),
    [
        (
            1,
            "ERROR: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of "
            "this builtin might be supported. Are you using an old TFLite binary with a newer model?\n\n"
            "ERROR: Registration failed.\n\nERROR: Failed to initialize the interpreter\n"
            "ERROR: Benchmarking failed.\n",
            "is older than m.tflite: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'",
            "newer",
        ),
        (
            1,
            "INFO: STARTING!\nERROR: Failed to load model m.tflite\nERROR: Benchmarking failed.\n",
            "exited with status 1 on m.tflite: Failed to load model m.tflite",
            None,
        ),
        (137, "INFO: Loaded model m.tflite", "was ended by signal 9 on m.tflite", None),
        (126, "sh: ./benchmark_model: not executable: 64-bit ELF file", "cannot be started", "processor"),
        (1, "", "exited with status 1 on m.tflite: no message", None),
    ],
)
def test_failures_say_why(status: int, said: str, words: str, hint: str | None) -> None:
    error = failure(status, said, "adb:1", "m.tflite")
    assert str(error).startswith(f"benchmark_model on adb:1 {words}")
    assert "\n" not in str(error)
    assert hint is None if error.hint is None else hint is not None and hint in error.hint
