"""The timing loop that runs where the model runs: standard library, numpy and one runtime, nothing else.

Copied to a device as it is and started as ``python path/to/agent JOBDIR``, on any Python from 3.9 on; so it
imports nothing from the rest of the package. ``JOBDIR`` holds ``job.json``, the model and perhaps
``inputs.npy``; the agent adds ``result.json``, and ``outputs.npy`` where inputs were given. With ``--probe``
in place of a folder it says what the machine is and which runtimes it has, in one ``probe`` event.

``job.json``, all fields required::

    runtime       tflite, onnxruntime or openvino
    model         file name inside JOBDIR
    options       passed to the runtime as they are, see runtimes.py
    threads       threads of one inference
    min_time_s    timed blocks go on until they have taken this long in all ...
    min_runs      ... and hold this many runs,
    max_time_s    but no longer than this
    warmup_max_s  warm-up ends here even where it is not steady yet
    block_s       length of one timed block
    block_samples samples that are kept of one, null for all
    cores         big, little or numbers as in 0-3 that the process is pinned to; null for none
    paced         wait for a line on stdin before each block
    seed          of the random input

One JSON object a line goes to stdout, ``{"event": "loaded" | "warm" | "block" | "error" | "result", ...}``;
a run counts only when ``result`` was its last line. On stdin a paced agent takes ``go`` before each block and
``end`` after the last. The end of stdin ends the process in every mode: the one who asked is gone.
"""
