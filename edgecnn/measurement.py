"""Measurements: raw latency samples and what is needed to judge them. What can be computed is not stored."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from edgecnn.errors import ConfigError
from edgecnn.modes import modes

# The limits below are about whether the median can be trusted, not about whether the machine is fast.

MIN_RUNS = 20
"""Fewer runs than this have no 90th percentile worth the name: two samples lie beyond it."""

MAX_SPREAD = 0.25
"""Of (p90 - p10) / p50. A quiet machine shows 0.02 to 0.1; at a quarter, other processes or the clock have as
much to say as the model, and the median depends on when one looked."""

MAX_DRIFT = 0.05
"""Between the medians of the first and the last third. The interval of the median takes all runs as drawn
from one distribution; a machine that heats up breaks that, and more runs do not mend it."""

MAX_INTERVAL = 0.05
"""Of the width of the median's 95 % interval to the median: differences below 5 % would be noise."""

MAX_OTHER_CPU = 0.10
"""Of the cores that the process may use, taken by other processes meanwhile. Caches, memory and the clock are
shared: a quiet board shows less than 0.02, one core of four that works on something else 0.25."""

PROCESS_EFFECT = 0.02
"""Two processes that run the same model differ by up to this much for as long as they live, by where their
memory happens to lie (Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong!, ASPLOS
2009). Of 13 comparisons of a MobileNetV2 with itself, 4 intervals missed 1, by at most 0.5 %."""

MIN_PAIRS = 10
"""Block pairs below which a percentile bootstrap is too narrow to be called a 95 % interval."""

RESAMPLES = 2000
"""Of the bootstrap: 50 resamples then lie beyond each end of a 95 % interval."""


@dataclass(frozen=True)
class Reading:
    """What the device told of its state at one moment outside the timed blocks; None for what it does not."""

    at_s: float
    """Seconds after the timed part began; below 0 before it."""
    busy: bool
    """Whether the model ran, untimed, while this was read."""
    temperature_c: float | None = None
    """Hottest zone of the processor, or of all where none is said to be the processor's."""
    frequency_mhz: float | None = None
    """Clock of the fastest core that the process may use."""
    throttled: bool | None = None
    """Whether heat or power has slowed the processor since the reading before."""
    power_w: float | None = None
    """Power by the device's own sensor."""
    battery_percent: float | None = None
    """Charge of its battery."""
    charging: bool | None = None
    """Whether it runs from its charger."""


@dataclass(frozen=True)
class Measurement:
    """One model timed on one device. A latency is one synchronous inference, input and output not copied."""

    target: str
    """Name of the target the artifact was compiled for."""
    variant: str
    """The model's full name, such as ``mobilenet_v2-1.0-224``."""
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    macs: int | None
    """Multiply-accumulates of one inference, where they were counted."""
    model_sha256: str
    """Digest of the model file, followed by its companion files where it has some."""
    model_size_bytes: int
    """Size of the same files together."""
    device: str
    """The device kind that ran it, such as ``local``."""
    runtime: str
    """``tflite``, ``onnxruntime`` or ``openvino``."""
    options: dict[str, Any]
    """What was passed to the runtime beyond its defaults."""
    threads: int
    """Threads of one inference."""
    started_at: str
    """When the measurement began, ISO 8601 in UTC."""
    load_ms: float
    """From the model's path to a model ready to run; the runtime's own import is not in it."""
    first_ms: float
    """The first inference, which allocates and packs weights in some runtimes."""
    warmup_ms: tuple[float, ...]
    """Runs that do not count: the warm-up, and in comparisons the first of each block."""
    warm: bool
    """Whether the warm-up became steady before its time was up."""
    samples_ms: tuple[float, ...]
    """Every timed run, in the order they ran."""
    block_runs: tuple[int, ...]
    """How many of the samples each timed block holds, in order."""
    runtime_version: str | None = None
    """Version of the runtime's package."""
    python_version: str | None = None
    """Version of the interpreter that ran the timing loop."""
    numpy_version: str | None = None
    """Version of numpy beside it."""
    memory_before_bytes: int | None = None
    """Peak resident memory before the model was loaded: interpreter, numpy and the imported runtime."""
    peak_memory_bytes: int | None = None
    """Peak resident memory of the process at the end of the timed runs."""
    cpu_model: str | None = None
    """The processor's name for itself."""
    cpu_arch: str | None = None
    """Machine type, such as ``x86_64`` or ``aarch64``."""
    cpu_count: int | None = None
    """Cores that the process may use."""
    cpu_features: tuple[str, ...] | None = None
    """Instruction set extensions that decide which int8 kernels run, such as ``avx512_vnni``."""
    os: str | None = None
    """Operating system and its release."""
    governor: str | None = None
    """Frequency governor of the first core."""
    load_before: float | None = None
    """One-minute load average before the timed runs."""
    load_after: float | None = None
    """The same after them."""
    frequency_mhz_before: float | None = None
    """Clock of the fastest core before the timed runs."""
    frequency_mhz_after: float | None = None
    """The same after them."""
    temperature_c_before: float | None = None
    """Hottest thermal zone before the timed runs."""
    temperature_c_after: float | None = None
    """The same after them."""
    throttled: bool | None = None
    """Whether the processor was slowed down by heat or power meanwhile; None where it does not tell."""
    throttled_by: tuple[str, ...] | None = None
    """What slowed it down, such as ``under-voltage``."""
    cores: tuple[int, ...] | None = None
    """Cores that the process was pinned to; None where it was not."""
    other_cpu: float | None = None
    """Share of the cores it might use that other processes took during the timed blocks, 0 to 1."""
    timed_at: float | None = None
    """When the timed part began: seconds since 1970 in UTC, by the clock of the machine that asked for it."""
    block_at_s: tuple[float, ...] | None = None
    """When each timed block began, in seconds after that."""
    block_took_s: tuple[float, ...] | None = None
    """How long each took, its untimed copies of the input included."""
    runs: int | None = None
    """Timed runs: as many as samples, or more where only some of those were kept."""
    telemetry: tuple[Reading, ...] | None = None
    """What the device told of its state before, during and after the timed part, in order."""
    check: dict[str, Any] | None = None
    """How its outputs were held against the graph's, where they were."""

    def __post_init__(self) -> None:
        if not self.samples_ms or sum(self.block_runs) != len(self.samples_ms):
            raise ConfigError("a measurement needs samples, and blocks that hold all of them")
        if not all(math.isfinite(sample) and sample > 0 for sample in self.samples_ms):
            raise ConfigError("a measurement has a sample that is not a duration")

    @property
    def p50_ms(self) -> float:
        """The median latency."""
        return statistics.median(self.samples_ms)

    @property
    def p90_ms(self) -> float:
        """The latency that nine runs in ten stay below."""
        return quantile(self.samples_ms, 0.90)

    @property
    def p99_ms(self) -> float:
        """The latency that 99 runs in 100 stay below; of fewer than 100 runs it is close to the slowest."""
        return quantile(self.samples_ms, 0.99)

    @property
    def mean_ms(self) -> float:
        """The mean latency: what a throughput is made of, and what outliers move."""
        return statistics.fmean(self.samples_ms)

    @property
    def spread(self) -> float:
        """(p90 - p10) / p50, a ratio: the width of the middle four fifths, blind to single outliers."""
        return (self.p90_ms - quantile(self.samples_ms, 0.10)) / self.p50_ms

    @property
    def drift(self) -> float:
        """The median of the last third over that of the first, minus 1: positive where it slowed down."""
        first, last = self._thirds()
        return statistics.median(last) / statistics.median(first) - 1

    @property
    def p50_interval_ms(self) -> tuple[float, float] | None:
        """The 95 % interval of the median, or None for fewer than 6 runs. See `median_interval`."""
        return median_interval(self.samples_ms)

    @property
    def gmacs_per_s(self) -> float | None:
        """Billions of multiply-accumulates a second at the median latency."""
        return None if self.macs is None else self.macs / self.p50_ms / 1e6

    @property
    def modes_ms(self) -> tuple[float, float] | None:
        """The two latencies around which the runs gather, or None where there are no two. See `modes`."""
        return modes(self.samples_ms)

    @property
    def steady(self) -> bool:
        """Whether the median may be printed as the model's latency; `reason` says why not."""
        return not self._doubts()

    @property
    def reason(self) -> str:
        """One sentence on why the median can, or cannot, be relied on, without a full stop."""
        if doubts := self._doubts():
            return "not steady: " + "; ".join(doubts)
        return f"steady: spread {self.spread:.1%}, drift {self.drift:+.1%} over {len(self.samples_ms)} runs"

    def _thirds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        third = max(1, len(self.samples_ms) // 3)
        return self.samples_ms[:third], self.samples_ms[-third:]

    def _drifts(self) -> bool:
        # A few runs drift by chance: then the two intervals overlap, and the width of the whole one judges.
        first, last = (median_interval(third) for third in self._thirds())
        if abs(self.drift) <= MAX_DRIFT or first is None or last is None:
            return False
        return first[1] < last[0] or last[1] < first[0]

    def _doubts(self) -> list[str]:
        doubts = []
        runs = len(self.samples_ms)
        if runs < MIN_RUNS:
            doubts.append(f"{runs} runs are fewer than {MIN_RUNS}")
        usable = len(self.cores) if self.cores else self.cpu_count
        if usable is not None and self.threads > usable:
            doubts.append(f"{self.threads} threads share {usable} core{'s' * (usable > 1)}")
        if self.throttled:
            by = f" ({', '.join(self.throttled_by)})" if self.throttled_by else ""
            doubts.append(f"the processor was throttled{by}")
        if self.other_cpu is not None and self.other_cpu > MAX_OTHER_CPU:
            doubts.append(f"other processes took {self.other_cpu:.0%} of the cores")
        if self.spread > MAX_SPREAD:
            doubts.append(f"the runs spread over {self.spread:.0%} of their median")
        if self._drifts():
            way = "slower" if self.drift > 0 else "faster"
            doubts.append(f"the last third ran {abs(self.drift):.0%} {way} than the first")
        if two := self.modes_ms:
            doubts.append(f"the runs gather around two latencies, {two[0]:.3g} and {two[1]:.3g} ms")
        interval = self.p50_interval_ms
        if interval and (interval[1] - interval[0]) / self.p50_ms > MAX_INTERVAL:
            doubts.append(f"the median is only known between {interval[0]:.3g} and {interval[1]:.3g} ms")
        loaded = self.load_before and self.cpu_count and self.load_before > self.cpu_count
        if doubts and loaded and self.other_cpu is None:
            doubts.append(f"other work loads the machine ({self.load_before:.1f} on {self.cpu_count} cores)")
        return doubts

    def to_json_line(self) -> str:
        """One line of JSON with every field, floats in full precision, without the newline."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        """The measurement that `to_json_line` wrote.

        Raises:
            ConfigError: not JSON, a field that is missing or unknown, samples that are not durations.
        """
        try:
            raw = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"not a measurement: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError("not a measurement: a JSON object is expected")
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(set(raw) - set(known)):
            raise ConfigError(f"not a measurement: unknown field '{unknown[0]}'")
        if missing := [name for name, f in known.items() if f.default is MISSING and name not in raw]:
            raise ConfigError(f"not a measurement: the field '{missing[0]}' is missing")
        try:
            return cls(**field_values(raw))
        except TypeError as error:
            raise ConfigError(f"not a measurement: {error}") from error


@dataclass(frozen=True)
class Comparison:
    """Two models timed in turns on one device: how much longer B takes than A."""

    target_a: str
    """Target of A."""
    target_b: str
    """Target of B."""
    variant_a: str
    """Variant of A."""
    variant_b: str
    """Variant of B."""
    precision_a: str
    """Precision of A."""
    precision_b: str
    """Precision of B."""
    pairs: int
    """Pairs of neighbouring blocks, one of each."""
    ratio: float
    """Latency of B over latency of A: the median over the pairs of the ratio of the two blocks' medians."""
    ratio_low: float
    """Lower end of its 95 % interval."""
    ratio_high: float
    """Upper end of its 95 % interval."""
    seed: int = 0
    """Of the bootstrap."""

    @classmethod
    def between(cls, a: Measurement, b: Measurement, *, seed: int = 0) -> Comparison:
        """Compare two measurements whose blocks were timed in turns.

        A machine that slows down for a while slows both blocks of a pair, so the ratio is taken within pairs.
        The interval is a percentile bootstrap over the pairs (Efron and Tibshirani, An Introduction to the
        Bootstrap, 1993, chapter 13), since blocks, unlike the runs inside one, are nearly independent. It
        does not cover what stays the same while the two processes live; `differs` leaves room for that.

        Raises:
            ConfigError: block counts that differ, or fewer than 10 pairs.
        """
        medians_a, medians_b = block_medians(a), block_medians(b)
        if len(medians_a) != len(medians_b) or len(medians_a) < MIN_PAIRS:
            raise ConfigError(
                f"{len(medians_a)} and {len(medians_b)} blocks cannot be compared",
                hint=f"time both in turns, at least {MIN_PAIRS} blocks of each",
            )
        ratios = [of_b / of_a for of_a, of_b in zip(medians_a, medians_b, strict=True)]
        generator = random.Random(seed)
        resampled = [statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
        return cls(
            target_a=a.target,
            target_b=b.target,
            variant_a=a.variant,
            variant_b=b.variant,
            precision_a=a.precision,
            precision_b=b.precision,
            pairs=len(ratios),
            ratio=statistics.median(ratios),
            ratio_low=quantile(resampled, 0.025),
            ratio_high=quantile(resampled, 0.975),
            seed=seed,
        )

    @property
    def differs(self) -> bool:
        """Whether the interval lies beyond what two processes running one model may differ by."""
        return self.ratio_low > 1 + PROCESS_EFFECT or self.ratio_high < 1 / (1 + PROCESS_EFFECT)

    def to_json(self) -> dict[str, Any]:
        """A plain dict with every field."""
        return asdict(self)


def field_values(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Measurement` from their form in JSON.

    Raises:
        TypeError: telemetry that is none.
    """
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    if values.get("telemetry") is not None:
        values["telemetry"] = tuple(Reading(**reading) for reading in values["telemetry"])
    return values


def block_medians(measurement: Measurement) -> list[float]:
    """The median of each timed block in milliseconds, in order."""
    medians = []
    start = 0
    for runs in measurement.block_runs:
        medians.append(statistics.median(measurement.samples_ms[start : start + runs]))
        start += runs
    return medians


def quantile(samples: Sequence[float], share: float) -> float:
    """The value that ``share`` (0..1) of the samples lie below, interpolated linearly, as in numpy."""
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % confidence interval of the median by order statistics; None for fewer than 6 samples.

    The number of samples below the true median is binomial with p = 1/2, whatever their distribution, so the
    interval from the k-th smallest to the k-th largest misses it with probability 2 P(X < k) (Conover,
    Practical Nonparametric Statistics, 3rd edition, section 3.2). It takes samples as independent; drift has
    its own limit.
    """
    count = len(samples)
    if count < 6:  # of 5, even the extremes miss it with probability 2 / 2**5 = 0.0625
        return None
    # Start six standard deviations below the middle: what lies lower adds less than 1e-8.
    rank = max(0, math.floor(count / 2 - 3 * math.sqrt(count)))
    below = 0.0
    while (below := below + _binomial_half(count, rank)) <= 0.025:
        rank += 1
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[count - rank]


def _binomial_half(count: int, successes: int) -> float:
    log_choose = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(log_choose - count * math.log(2))
