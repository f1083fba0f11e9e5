"""Readings of machines that are not this one: their files and tools, made anew from what they show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgecnn.agent import cores, host, raspberry_pi, telemetry

# As a Raspberry Pi 5 prints them; the second form is that of newer firmware.
ADC = """\
     3V3_SYS_A=0.10000000A
    VDD_CORE_A=1.50000000A
     3V3_SYS_V=3.30000000V
    VDD_CORE_V=0.90000000V
       EXT5V_V=5.12000000V
"""
NEWER_ADC = """\
     3V3_SYS_A current(1)=0.10000000A
    VDD_CORE_A current(7)=1.50000000A
     3V3_SYS_V volt(9)=3.30000000V
    VDD_CORE_V volt(15)=0.90000000V
       EXT5V_V volt(24)=5.12000000V
        BATT_V volt(25)=0.00000000V
"""


def fake_vcgencmd(folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: str) -> Path:
    """A tool of that name in front of the path, which notes what it was asked."""
    if sys.platform == "win32":
        pytest.skip("a shell script")
    cases = "".join(f"  {name}) cat <<'END'\n{text.rstrip()}\nEND\n  ;;\n" for name, text in answers.items())
    script = f'#!/bin/sh\necho "$@" >> {folder}/asked\ncase $1 in\n{cases}'
    script += "  *) echo 'error=1 error_msg=\"Command not registered\"'; exit 255 ;;\nesac\n"
    tool = folder / "vcgencmd"
    tool.write_text(script)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "asked"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its /sys; three little and one big core. It has no vcgencmd, and this process may use all four."""
    sys_folder = tmp_path / "sys"
    for core, khz in enumerate((1_500_000, 1_500_000, 1_520_000, 2_400_000)):
        folder = sys_folder / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
        (folder / "scaling_max_freq").write_text(f"{khz}\n")
        (folder / "scaling_cur_freq").write_text(f"{600_000 + core}\n")
        (folder / "scaling_governor").write_text("ondemand\n")
    zone(sys_folder, 0, "cpu-thermal", "48312")
    monkeypatch.setattr(host, "SYS", str(sys_folder))
    monkeypatch.setattr(host, "usable_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(raspberry_pi, "FOLDERS", ())
    return sys_folder


def zone(sys_folder: Path, number: int, kind: str, temperature: str) -> None:
    folder = sys_folder / f"class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "temp").write_text(f"{temperature}\n")


def test_readings_are_optional_and_of_their_kind() -> None:
    facts, snapshot = host.facts(), host.snapshot()
    assert facts["cpu_count"] >= 1
    assert all(value is None or value > 0 for key, value in snapshot.items() if key.endswith(("_mhz", "_c")))
    json.dumps({**facts, **snapshot})


def test_peak_memory_grows_with_what_is_held() -> None:
    # In a process of its own: one that has held more before shows that.
    code = (
        "import json; from edgecnn.agent import host\n"
        "before = host.peak_memory_bytes(); held = b'x' * (64 << 20)\n"
        "print(json.dumps([before, host.peak_memory_bytes(), len(held)]))"
    )
    repository = Path(host.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=repository)
    before, after, held = json.loads(done.stdout)
    if before is None:
        pytest.skip("this system does not tell")
    assert 1 << 20 < before <= after - held // 2


def test_a_board_shows_its_clock_temperature_and_governor(board: Path) -> None:
    assert host.settings()["governor"] == "ondemand"
    reading = host.Sensors().read()
    assert reading["frequency_mhz"] == pytest.approx(600.003)
    assert reading["frequency_limit_mhz"] == 2400
    assert reading["temperature_c"] == 48.312
    assert reading["throttle_bits"] is None
    assert reading["power_w"] is None


def test_the_processors_zones_go_before_others(board: Path) -> None:
    zone(board, 1, "battery", "90000")
    zone(board, 2, "cpu-1-0-usr", "61000")
    zone(board, 3, "soc-thermal", "-273000")
    assert host.Sensors().read()["temperature_c"] == 61
    for number in (0, 2, 3):
        (board / f"class/thermal/thermal_zone{number}/type").write_text("acpitz")
    assert host.Sensors().read()["temperature_c"] == 90


def test_a_battery_is_read_where_it_is_asked_for(board: Path) -> None:
    for name, scope in (("mouse", "Device"), ("BAT0", "System")):
        folder = board / "class/power_supply" / name
        folder.mkdir(parents=True)
        (folder / "type").write_text("Battery\n")
        (folder / "scope").write_text(f"{scope}\n")
        (folder / "capacity").write_text("84\n" if name == "BAT0" else "5\n")
        (folder / "status").write_text("Discharging\n")
    sensors = host.Sensors()
    assert sensors.read()["battery_percent"] is None
    read = sensors.read(battery=True)
    assert (read["battery_percent"], read["charging"]) == (84, False)


def test_the_firmware_of_a_pi_4_is_asked_for_what_it_knows(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake_vcgencmd(
        tmp_path,
        monkeypatch,
        measure_temp="temp=51.1'C",
        get_throttled="throttled=0x50005",
        measure_clock="frequency(48)=1500345728",
    )
    sensors = host.Sensors()
    worked: list[int] = []
    reading = sensors.read(lambda: worked.append(1))
    assert worked
    assert reading["frequency_mhz"] == pytest.approx(1500.345728)
    assert reading["temperature_c"] == 51.1
    assert reading["throttle_bits"] == 0x50005
    assert reading["power_w"] is None
    asked.unlink()
    assert sensors.read()["temperature_c"] == 48.312
    # The zone costs less, and a Pi 4 has no power sensor: neither is asked for again.
    assert asked.read_text().split("\n")[:-1] == ["get_throttled", "measure_clock arm"]


@pytest.mark.parametrize("text", [ADC, NEWER_ADC])
def test_power_is_summed_over_rails_with_both_readings(
    text: str, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vcgencmd(tmp_path, monkeypatch, pmic_read_adc=text)
    assert host.Sensors().read()["power_w"] == pytest.approx(0.1 * 3.3 + 1.5 * 0.9)


def test_a_firmware_that_hangs_is_asked_once(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake_vcgencmd(tmp_path, monkeypatch)
    tool = tmp_path / "vcgencmd"
    tool.write_text(tool.read_text().replace("case", "sleep 60\ncase", 1))
    monkeypatch.setattr(host, "ANSWER_S", 0.3)
    sensors = host.Sensors()
    began = time.monotonic()
    assert sensors.read()["temperature_c"] == 48.312
    assert sensors.read()["temperature_c"] == 48.312
    assert time.monotonic() - began < 10
    assert len(asked.read_text().splitlines()) == 1


def test_without_the_tool_the_kernels_bits_are_read(board: Path) -> None:
    folder = board / "devices/platform/soc@107c000000/soc@107c000000:firmware"
    folder.mkdir(parents=True)
    (folder / "get_throttled").write_text("50000\n")
    assert host.Sensors().read()["throttle_bits"] == 0x50000


def reading(**told: Any) -> dict[str, Any]:
    return {"throttle_bits": None, "throttle_count": None, "frequency_limit_mhz": None, **told}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([{}, {}], [None, None]),
        ([{"throttle_bits": 0}, {"throttle_bits": 0}], [[], []]),
        ([{"throttle_bits": 0x1}, {"throttle_bits": 0}], [["under-voltage"], []]),
        ([{"throttle_bits": 0}, {"throttle_bits": 0x6}], [[], ["frequency capped", "throttled"]]),
        # Since the boot, but before the run; between two readings; and from then on no more.
        ([{"throttle_bits": 0xF0000}, {"throttle_bits": 0xF0000}], [[], []]),
        (
            [{"throttle_bits": 0}, {"throttle_bits": 0x80000}, {"throttle_bits": 0x80000}],
            [[], ["soft temperature limit"], []],
        ),
        ([{"throttle_count": 4}, {"throttle_count": 4}, {"throttle_count": 5}], [[], [], ["too hot"]]),
        # A limit of the clock tells where it sinks, and else nothing.
        (
            [
                {"frequency_limit_mhz": 2400.0},
                {"frequency_limit_mhz": 1800.0},
                {"frequency_limit_mhz": 2400.0},
            ],
            [None, ["clock limited to 1800 MHz"], None],
        ),
    ],
)
def test_throttling(series: list[dict[str, Any]], expected: list[list[str] | None]) -> None:
    assert host.throttling([reading(**told) for told in series]) == expected


def test_big_and_little_are_told_apart_by_their_top_clock(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[Any] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, chosen: pinned.append(chosen), raising=False)
    assert cores.pin("little") == [0, 1, 2]
    assert cores.pin("big") == [3]
    assert cores.pin("0,2-3") == [0, 2, 3]
    assert pinned == [[0, 1, 2], [3], [0, 2, 3]]
    with pytest.raises(cores.Refused, match="there are no cores 3-5 to pin to, only 0-3"):
        cores.pin("3-5")


def test_cores_of_one_kind_are_not_called_big(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("pinned"), raising=False)
    with pytest.raises(cores.Refused, match="there are no big cores: 0-2 are all of 1500 MHz"):
        cores.pin("big")
    monkeypatch.setattr(host, "SYS", "/nowhere")
    with pytest.raises(cores.Refused, match="does not tell which cores are little"):
        cores.pin("little")


def test_the_work_of_others_is_what_is_not_our_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  1 2 3\ncpu0 100 10 20 900 50 3 4 5 9 9\ncpu1 7 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(host, "PROC", str(tmp_path))
    hertz = os.sysconf("SC_CLK_TCK")
    assert host.cpu_seconds({0}) == pytest.approx((100 + 10 + 20 + 3 + 4 + 5) / hertz)
    assert host.cpu_seconds({0, 2}) is None

    busy, own, now = iter([10.0, 11.5, 20.0, 21.0]), iter([1.0, 2.0, 2.0, 2.5]), iter([0.0, 1.0, 5.0, 6.0])
    monkeypatch.setattr(host, "cpu_seconds", lambda _: next(busy))
    monkeypatch.setattr(host, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(telemetry.time, "process_time", lambda: next(own))
    monkeypatch.setattr(telemetry.time, "perf_counter", lambda: next(now))
    others = telemetry.OtherWork()
    for _ in range(2):
        others.begin()
        others.end()
    # 2.5 s of work, 1.5 s of them our own, on two cores for 2 s.
    assert others.share == pytest.approx(1.0 / 4.0)


def test_a_busy_neighbour_is_seen() -> None:
    if host.cpu_seconds(host.usable_cores()) is None:
        pytest.skip("this system does not tell what its cores do")
    others = telemetry.OtherWork()
    others.begin()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            time.sleep(1.0)
        finally:
            neighbour.kill()
    others.end()
    assert others.share is not None
    assert others.share > 0.5 / len(host.usable_cores())


def test_the_series_says_when_and_whether_the_model_ran(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vcgencmd(tmp_path, monkeypatch, pmic_read_adc=ADC, get_throttled="throttled=0x0")
    monkeypatch.setattr(telemetry, "REST_S", 0.0)
    state = telemetry.Telemetry()
    state.read_at_rest()
    began = time.perf_counter()
    state.read_if_due(lambda: None)  # the last was just now
    state.read(lambda: None)
    result = state.result(began)
    assert result["throttled"] is False
    assert result["throttled_by"] == []
    assert [entry["busy"] for entry in result["telemetry"]] == [False] * telemetry.REST_READINGS + [True]
    assert result["telemetry"][0]["at_s"] < 0 < result["telemetry"][-1]["at_s"]
    assert all(entry["power_w"] == pytest.approx(1.68) for entry in result["telemetry"])
