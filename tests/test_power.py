"""Logs as meters' programs write them, and energies that can be worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgecnn.errors import ConfigError
from edgecnn.measurement import Measurement, Reading
from edgecnn.power import metered, sensed
from edgecnn.power_log import Trace, read_power

BEGAN = 1738317600.0  # 2025-01-31T10:00:00Z
LOCAL = datetime.fromtimestamp(BEGAN)

# The same two readings, 2.5 W and 3 W, one second apart.
LAYOUTS = {
    "seconds since 1970 and watts": "timestamp,power_W\n1738317600,2.5\n1738317601,3\n",
    "milliwatts": "Timestamp (ms),Power [mW],Energy (mWh)\n1738317600000,2500,7\n1738317601000,3000,8\n",
    "volts and amperes": "time,Voltage (V),Current (A)\n1738317600,5,0.5\n1738317601,5,0.6\n",
    "spaces, as of FNIRSI's meters": (
        "\ntimestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As\n"
        "1738317600.000 0 5.00000 0.50000 1.184 1.031 30.500 0.000000 0.000001\n"
        "1738317601.000 1 5.00000 0.60000 1.184 1.031 30.500 0.000000 0.000001\n"
    ),
    "a preamble, semicolons and decimal commas": (
        "USB meter 1.2\n\nDateTime;VBUS (V);IBUS (mA)\n"
        "2025-01-31T10:00:00,000Z;5,0;500\n2025-01-31T10:00:01,000Z;5,0;600\n"
    ),
    "tabs and a comment": "# Time (UTC)\tP/W\n2025/01/31 10:00:00\t2.5\n# paused\n2025/01/31 10:00:01\t3.0\n",
    "date and time apart, and quoted": (
        '"Date (UTC)","Time (UTC)","Max Power (W)","Power (W)"\n'
        '"2025-01-31","10:00:00","9","2.5"\n"2025-01-31","10:00:01","9","3.0"\n'
    ),
    "power before voltage and current": (
        "timestamp,voltage,current,power\n1738317600,5,9,2.5\n1738317601,5,9,3\n"
    ),
    "a clock of whole seconds": (
        "timestamp,power\n1738317600,2\n1738317600,3\n1738317601,3.5\n1738317601,2.5\n"
    ),
    "packets that come out of order": "timestamp,power\n1738317601,3\n1738317600,2.5\n",
    "a header again, where a recording went on": (
        "timestamp,power\n1738317600,2.5\n\ntimestamp,power\n1738317601,3\n"
    ),
    "a last line that was cut off": "timestamp,volts,amps\n1738317600,5,0.5\n1738317601,5,.6\n1738317602,5",
}


def log(folder: Path, text: str) -> Path:
    path = folder / "meter.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_common_layouts_are_understood(text: str, tmp_path: Path) -> None:
    trace = read_power(log(tmp_path, text))
    assert trace.times == (BEGAN, BEGAN + 1)
    assert trace.watts == pytest.approx((2.5, 3.0))
    assert trace.assumed == ()


def test_times_without_a_zone_are_local_and_said_to_be(tmp_path: Path) -> None:
    lines = [f"{LOCAL.isoformat(sep=' ')},2.5", f"{LOCAL.replace(second=1).isoformat(sep=' ')},3"]
    trace = read_power(log(tmp_path, "\n".join(["Time,Power (W)", *lines])))
    assert trace.times == (BEGAN, BEGAN + 1)
    assert trace.assumed == ("the meter's times are in this machine's time zone",)


def test_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text(LAYOUTS["milliwatts"], encoding="utf-16")
    assert read_power(path).times == (BEGAN, BEGAN + 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no columns of time and power"),
        ("1738317600,2.5\n1738317601,3\n", "names no columns of time and power"),
        ("timestamp,energy (Wh)\n1738317600,2.5\n", "line 1 names no time with a power: timestamp,energy"),
        ("timestamp,current (A)\n1738317600,2.5\n", "line 1 names no time with a power"),
        ("a note\nvoltage,current\n5,1\n", "line 2 names no time with a power: voltage,current"),
        ("timestamp,power (Wh)\n1738317600,2.5\n", "names no time with a power"),
        ("timestamp,power\n1738317600,2.5\n1738317601,three\n1,1", "line 3: 'three' is no number"),
        ("timestamp,power\n1738317600,nan\n1738317601,3\n", "line 2: 'nan' is no number"),
        ("timestamp,power\n1738317600\n1738317601,3\n", "line 2 has 1 of 2 columns"),
        ("timestamp,power\n31.01.2025 10:00,3\n", "line 2: '31.01.2025 10:00' is no date and time"),
        ("time (s),power\n0.0,3\n0.1,3\n", "line 2: the time 0.0 counts from the meter's own start"),
        ("timestamp,power\n1738317600,2\n1738310000,3\n", "line 3: the time goes back"),
        ("timestamp,power\n1738317600,2\n", "holds fewer than two readings"),
    ],
)
def test_bad_logs_are_refused_with_their_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_power(log(tmp_path, text))
    assert words in str(caught.value)
    assert str(tmp_path / "meter.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.csv cannot be read: No such file"):
        read_power(tmp_path / "absent.csv")


def run(**changes: object) -> Measurement:
    """Ten blocks of one second with a gap of 0.1 s after each; 20 ms a run, 1 ms of it to copy the input."""
    fields: dict[str, object] = {
        "target": "t", "variant": "v", "precision": "int8", "macs": None, "model_sha256": "0", "threads": 1,
        "model_size_bytes": 1, "device": "ssh:pi", "runtime": "tflite", "options": {}, "load_ms": 1.0,
        "first_ms": 1.0, "warmup_ms": (), "warm": True, "samples_ms": (19.0,) * 500, "block_runs": (50,) * 10,
        "started_at": datetime.fromtimestamp(BEGAN - 5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "timed_at": BEGAN, "block_at_s": tuple(1.1 * at for at in range(10)), "block_took_s": (1.0,) * 10,
        **changes,
    }  # fmt: skip
    return Measurement(**fields)  # type: ignore[arg-type]


def trace(idle_w: float, busy_w: float, since_s: float = -60.0) -> Trace:
    """Ten readings a second, of a device that is busy while it loads and runs."""
    times = [BEGAN + since_s + 0.1 * step for step in range(int((30 - since_s) * 10))]
    return Trace(
        times=tuple(times),
        watts=tuple(busy_w if BEGAN - 5 <= time <= BEGAN + 11.2 else idle_w for time in times),
    )


def test_energy_of_an_inference_by_a_meter() -> None:
    energy = metered(run(), trace(2.0, 5.0))
    assert energy.mean_w == pytest.approx(5.0)
    assert energy.idle_w == pytest.approx(2.0)
    assert energy.per_inference_mj == pytest.approx(5.0 * 20)
    assert energy.above_idle_mj == pytest.approx(3.0 * 20)
    assert energy.readings == pytest.approx(100, abs=11)
    assert "idle in the 30 s before" in energy.assumed[-1]
    assert energy.sentence == "100 mJ an inference, 60 mJ of it above idle (5 W, 2 W idle)"
    assert energy.to_json()["per_inference_mj"] == energy.per_inference_mj


def test_runs_count_and_not_the_samples_that_were_kept() -> None:
    assert metered(run(runs=1000), trace(2.0, 5.0)).per_inference_mj == pytest.approx(5.0 * 10)


def test_power_is_averaged_over_time_and_in_the_blocks_alone() -> None:
    # 4 W in every block and 100 W in the gaps, where readings lie as densely as they like.
    times = [BEGAN - 1.0]
    for block in range(10):
        at = BEGAN + 1.1 * block
        times += [at, at + 0.001, at + 0.5, at + 1.0, at + 1.02, at + 1.05]
    times += [BEGAN + 12.0]
    watts = [100.0 if round((time - BEGAN) % 1.1, 3) in (1.02, 1.05) else 4.0 for time in times]
    energy = metered(run(), Trace(tuple(times), tuple(watts)))
    assert energy.mean_w == pytest.approx(4.0)
    assert energy.above_idle_mj is None
    assert "idle power is not known" in energy.assumed[-1]


@pytest.mark.parametrize(
    ("measured", "recorded", "words"),
    [
        (run(timed_at=None), trace(2, 5), "does not tell when its runs were"),
        (run(timed_at=BEGAN + 3600), trace(2, 5), "the meter's log goes from"),
        (run(timed_at=BEGAN - 3600), trace(2, 5), "the meter's log goes from"),
        (run(), Trace((BEGAN - 5, BEGAN + 5, BEGAN + 20), (5.0, 5.0, 5.0)), "1 readings of the meter"),
        (run(), trace(-2, -5), "the meter shows -5 W"),
    ],
)
def test_logs_that_do_not_fit_the_run_are_refused(measured: Measurement, recorded: Trace, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        metered(measured, recorded)


def test_energy_by_the_boards_own_sensor() -> None:
    rest = [Reading(at_s=-3 + 0.3 * step, busy=False, power_w=1.5) for step in range(4)]
    busy = [Reading(at_s=float(at), busy=True, power_w=4.0 + 0.5 * (at % 2)) for at in range(10)]
    energy = sensed(run(telemetry=(*rest, *busy)))
    assert energy is not None
    assert (energy.source, energy.mean_w, energy.idle_w) == ("sensor", 4.25, 1.5)
    assert energy.per_inference_mj == pytest.approx(4.25 * 20)
    assert energy.above_idle_mj == pytest.approx(2.75 * 20)
    assert any("USB" in sentence for sentence in energy.assumed)


def test_a_board_without_a_sensor_has_no_energy() -> None:
    assert sensed(run()) is None
    assert (
        sensed(run(telemetry=tuple(Reading(float(at), True, temperature_c=50.0) for at in range(9)))) is None
    )
