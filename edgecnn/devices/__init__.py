"""Where a model is measured: one module a device kind, each with ``measure(job) -> Measurement``."""
