"""Measurements and comparisons from synthetic samples."""

from __future__ import annotations

import json
import random
import statistics
from dataclasses import replace

import pytest

from edgecnn.errors import ConfigError
from edgecnn.measurement import (
    MIN_PAIRS,
    MIN_RUNS,
    Comparison,
    Measurement,
    Reading,
    block_medians,
    median_interval,
    quantile,
)

BLOCK = 10


def measured(samples: list[float], **fields: object) -> Measurement:
    blocks = [len(samples[at : at + BLOCK]) for at in range(0, len(samples), BLOCK)]
    base = Measurement(
        target="onnxruntime",
        variant="mobilenet_v2-1.0-224",
        precision="int8",
        macs=300_000_000,
        model_sha256="0" * 64,
        model_size_bytes=1,
        device="local",
        runtime="onnxruntime",
        options={"session.intra_op.allow_spinning": "0"},
        threads=1,
        started_at="2025-01-01T00:00:00Z",
        load_ms=10.0,
        first_ms=5.0,
        warmup_ms=(5.0, 4.0),
        warm=True,
        samples_ms=tuple(samples),
        block_runs=tuple(blocks),
    )
    return replace(base, **fields)


def noisy(median: float, sigma: float, runs: int, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [median * generator.lognormvariate(0, sigma) for _ in range(runs)]


def test_numbers_of_known_samples() -> None:
    m = measured([float(n) for n in range(1, 102)])
    assert (m.p50_ms, m.p90_ms, m.p99_ms, m.mean_ms) == (51, 91, 100, 51)
    assert m.spread == pytest.approx(80 / 51)
    assert m.drift == pytest.approx(85 / 17 - 1)
    assert m.gmacs_per_s == pytest.approx(0.3 / 0.051)
    assert measured([1.0] * 30, macs=None).gmacs_per_s is None


def test_quiet_samples_are_steady() -> None:
    m = measured(noisy(2.0, 0.02, 200))
    assert m.steady
    assert m.reason.startswith("steady: spread")


@pytest.mark.parametrize(
    ("samples", "fields", "words"),
    [
        (noisy(2.0, 0.3, 500), {}, "spread over"),
        (noisy(2.0, 0.02, 200) + noisy(2.2, 0.02, 200), {}, "slower than the first"),
        (noisy(2.2, 0.02, 200) + noisy(2.0, 0.02, 200), {}, "faster than the first"),
        (noisy(2.0, 0.02, MIN_RUNS - 1), {}, "fewer than"),
        (noisy(2.0, 0.08, MIN_RUNS), {}, "only known between"),
        (noisy(2.0, 0.02, 200), {"throttled": True}, "throttled"),
        (
            noisy(2.0, 0.02, 200),
            {"throttled": True, "throttled_by": ("under-voltage", "frequency capped")},
            "throttled (under-voltage, frequency capped)",
        ),
        (noisy(2.0, 0.3, 500), {"load_before": 7.5, "cpu_count": 4}, "other work loads the machine (7.5"),
        (noisy(2.0, 0.02, 200), {"other_cpu": 0.26}, "other processes took 26% of the cores"),
        (
            [x * (1 if place % 3 else 1.2) for place, x in enumerate(noisy(2.0, 0.01, 300))],
            {},
            "the runs gather around two latencies, 2 and 2.4 ms",
        ),
    ],
)
def test_doubtful_samples_are_not_steady_and_say_why(
    samples: list[float], fields: dict[str, object], words: str
) -> None:
    m = measured(samples, **fields)
    assert not m.steady
    assert m.reason.startswith("not steady: ")
    assert words in m.reason


def test_a_few_quiet_runs_are_not_called_drifting() -> None:
    steady = sum(measured(noisy(2.0, 0.02, MIN_RUNS, seed)).steady for seed in range(100))
    assert steady >= 95


def test_a_quiet_neighbour_is_no_doubt_and_is_not_named_twice() -> None:
    assert measured(noisy(2.0, 0.02, 200), other_cpu=0.05, throttled=False, throttled_by=()).steady
    loaded = measured(noisy(2.0, 0.3, 500), other_cpu=0.02, load_before=7.5, cpu_count=4)
    assert "other" not in loaded.reason


def test_outliers_do_not_make_it_unsteady() -> None:
    samples = noisy(2.0, 0.02, 200)
    samples[50] = samples[150] = 200.0
    assert measured(samples).steady


def test_json_line_keeps_every_digit() -> None:
    m = measured(
        noisy(2.0, 0.1, 50),
        cpu_features=("avx2", "avx_vnni"),
        throttled=False,
        throttled_by=(),
        cores=(4, 5),
        timed_at=1738317600.123,
        block_at_s=(0.0, 0.1, 0.2, 0.3, 0.4),
        block_took_s=(0.1,) * 5,
        telemetry=(
            Reading(-0.5, False, temperature_c=41.2),
            Reading(0.3, True, power_w=4.25, throttled=True),
        ),
    )
    line = m.to_json_line()
    assert "\n" not in line
    assert Measurement.from_json(line) == m


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples_ms": []}, "needs samples"),
        ({"samples_ms": [1.0, float("nan")], "block_runs": [2]}, "not a duration"),
        ({"samples_ms": [1.0, -1.0], "block_runs": [2]}, "not a duration"),
        ({"samples_ms": ["1"], "block_runs": [1]}, "not a measurement"),
        ({"block_runs": [3]}, "blocks that hold all"),
        ({"telemetry": [{"at_s": 0.0, "busy": True, "fan_rpm": 3000}]}, "fan_rpm"),
        ({"telemetry": [1]}, "not a measurement"),
        ({"latency": 3}, "unknown field 'latency'"),
    ],
)
def test_lines_that_are_no_measurement_are_refused(change: dict[str, object], words: str) -> None:
    raw = json.loads(measured(noisy(2.0, 0.1, 50)).to_json_line())
    with pytest.raises(ConfigError, match=words):
        Measurement.from_json(json.dumps({**raw, **change}))


def test_a_line_that_lacks_a_field_is_refused() -> None:
    raw = json.loads(measured(noisy(2.0, 0.1, 50)).to_json_line())
    del raw["threads"]
    with pytest.raises(ConfigError, match="'threads' is missing"):
        Measurement.from_json(json.dumps(raw))


@pytest.mark.parametrize("line", ["", "[1]", "{", "null"])
def test_text_that_is_no_json_object_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="not a measurement"):
        Measurement.from_json(line)


def test_quantile_interpolates() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([1.0], 0.9) == 1.0


def test_median_interval_takes_the_tabulated_ranks() -> None:
    # As in tables of the sign test at 5 %, two-sided.
    ranks = {6: (1, 6), 9: (2, 8), 10: (2, 9), 20: (6, 15), 30: (10, 21), 100: (40, 61)}
    for count, expected in ranks.items():
        assert median_interval([float(n) for n in range(1, count + 1)]) == expected
    assert median_interval([1.0] * 5) is None


def test_median_interval_covers() -> None:
    hits = 0
    for seed in range(400):
        low, high = median_interval(noisy(1.0, 0.2, 41, seed)) or (0, 0)
        hits += low <= 1.0 <= high
    assert hits >= 0.93 * 400


def test_median_interval_of_many_samples_is_narrow() -> None:
    low, high = median_interval([float(n) for n in range(1_000_000)]) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * 500, rel=0.01)


def test_block_medians_follow_the_blocks() -> None:
    m = measured([1.0, 2.0, 9.0, 5.0], block_runs=(3, 1))
    assert block_medians(m) == [2.0, 5.0]


def test_comparison_finds_a_known_ratio_under_common_drift() -> None:
    drift = [1 + 0.5 * at / 300 for at in range(300)]
    a = measured([x * d for x, d in zip(noisy(2.0, 0.03, 300, 1), drift, strict=True)])
    b = measured([x * d for x, d in zip(noisy(2.5, 0.03, 300, 2), drift, strict=True)])
    c = Comparison.between(a, b, seed=3)
    assert c.ratio_low <= 1.25 <= c.ratio_high
    assert c.ratio_high - c.ratio_low < 0.05
    assert c.differs
    assert c.pairs == 30
    assert c == Comparison.between(a, b, seed=3)
    assert json.loads(json.dumps(c.to_json()))["ratio"] == c.ratio


def test_comparison_of_equals_covers_one() -> None:
    covered = []
    for seed in range(40):
        a, b = measured(noisy(2.0, 0.05, 200, seed)), measured(noisy(2.0, 0.05, 200, 1000 + seed))
        c = Comparison.between(a, b)
        covered.append(c.ratio_low <= 1 <= c.ratio_high)
        assert not c.differs
    assert statistics.fmean(covered) >= 0.85


def test_comparison_needs_pairs() -> None:
    enough, few = measured([1.0] * (BLOCK * MIN_PAIRS)), measured([1.0] * (BLOCK * (MIN_PAIRS - 1)))
    for a, b in ((few, few), (enough, few)):
        with pytest.raises(ConfigError, match="cannot be compared"):
            Comparison.between(a, b)
