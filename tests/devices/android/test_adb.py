"""The real adb client, a small debug daemon that it takes for a phone, and stand-ins for its commands."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import edgecnn
from edgecnn.count.cores import lay_out, open_cpu
from edgecnn.devices.address import attached
from edgecnn.devices.android import client, device, linux, phone, termux
from edgecnn.devices.android.client import Shell, choose
from edgecnn.devices.android.device import AdbDevice, phones
from edgecnn.devices.android.termux import TermuxDevice
from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError, DeviceError, MissingDependency
from edgecnn.fetch.debian import System, fetch_system
from edgecnn.measurement import Measurement
from edgecnn.progress import silent
from tests.devices.android.adbd import Daemon
from tests.devices.conftest import Known
from tests.devices.test_local import SHAPE, tflite_relu

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb here (apt-get install adb)")

REPOSITORY = Path(edgecnn.__file__).parents[1]

BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4200
  temperature: 326
  technology: Li-ion
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, health:2, voltage:4120, temperature:345
"""
THERMAL = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
 Temperature{mValue=71.0, mType=0, mName=cpu0, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=-99.9, mType=5, mName=pa, mStatus=0}
\tTemperature{mValue=41.5, mType=0, mName=cpu0, mStatus=0}
\tTemperature{mValue=32.6, mType=2, mName=battery, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=99, mType=2, mName=cpu}
"""
PROPERTIES = {
    "ro.product.manufacturer": "Maker",
    "ro.product.model": "Phone 8",
    "ro.soc.manufacturer": "Chips",
    "ro.soc.model": "G3",
    "ro.build.version.release": "14",
}

# Prints what TensorFlow Lite's program prints, of durations that hang on the model's name; outputs are left
# to one that computes.
TOOL = """\
#!/bin/sh
here=${{0%/*}}
echo "$@" >>"$here/calls.txt"
if [ -e "$here/hang" ]; then echo $$ >"$here/running"; exec sleep 600; fi
us=1000
case "$*" in
  *--output_filepath=*) exec {python} "$here/compute.py" "$@" ;;
  *slow*) us=2000 ;;
esac
limits="seconds but terminate if exceeding 30 seconds."
echo "INFO: STARTING!"
echo "INFO: Log parameter values verbosely: [0]"
echo "INFO: Loaded model"
echo "INFO: Created TensorFlow Lite XNNPACK delegate for CPU." >&2
echo "INFO: The input model file size (MB): 0.000456"
echo "INFO: Initialized session in 1.25ms."
echo "INFO: Running benchmark for at least 1 iterations and at least 0.2 $limits"
echo "INFO: count=150 first=4100 curr=1003 min=990 max=4100 avg=1010.5 std=80 p5=995 median=1001 p95=1030"
echo
echo "INFO: Running benchmark for at least 3 iterations and at least 0.1 $limits"
echo "INFO: count=100 first=$us curr=1003 min=990 max=4000 avg=$us std=8 p5=995 median=$us p95=3900"
echo
timings="Init: 1250, First inference: 4100, Warmup (avg): 1010.5, Inference (avg): $us"
echo "INFO: Inference timings in us: $timings"
echo "INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=3.25"
"""
COMPUTE = """\
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
interpreter = Interpreter(flags["graph"])
interpreter.allocate_tensors()
given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
shape = [int(size) for size in flags["input_layer_shape"].split(",")]
name, file = flags["input_layer_value_files"].split(":")
assert name == flags["input_layer"]
interpreter.set_tensor(given["index"], np.fromfile(file, given["dtype"]).reshape(shape))
interpreter.invoke()
interpreter.get_tensor(gives["index"]).tofile(flags["output_filepath"])
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Phone:
    """A debug daemon, the folder that it has for ``/data/local/tmp``, and its commands."""

    def __init__(self, folder: Path, daemon: Daemon) -> None:
        self.daemon = daemon
        self.serial = daemon.address
        self.commands = folder / "bin"
        self.place = folder / "data"
        self.place.mkdir()
        self.dumps = folder / "dumps"
        self.dumps.mkdir()
        self.say("battery", BATTERY)
        self.say("thermalservice", THERMAL)
        self.say("power", "POWER MANAGER\n  mWakefulness=Awake\n  mWakefulnessChanging=false\n")
        executable(self.commands / "dumpsys", f'#!/bin/sh\nexec cat {self.dumps}/"$1"\n')
        executable(
            self.commands / "settings", '#!/bin/sh\n[ "$*" = "get global airplane_mode_on" ] && echo 1\n'
        )
        cases = "".join(f"  {name}) echo '{value}' ;;\n" for name, value in PROPERTIES.items())
        executable(self.commands / "getprop", f'#!/bin/sh\ncase "$1" in\n{cases}  *) echo ;;\nesac\n')
        executable(
            self.commands / "run-as", "#!/bin/sh\necho 'run-as: unknown package: com.termux' >&2; exit 1\n"
        )

    def say(self, service: str, text: str) -> None:
        (self.dumps / service).write_text(text)

    def install_tool(self, folder: Path | None = None) -> Path:
        (self.place / "compute.py").write_text(COMPUTE)
        place = folder or self.place
        return executable(place / "benchmark_model", TOOL.format(python=sys.executable))

    def calls(self) -> list[str]:
        return (self.place / "calls.txt").read_text().splitlines()

    def is_clean(self) -> bool:
        """Whether nothing of a session is left, at once or in a moment."""
        return soon(lambda: not list(self.place.glob("edgecnn-job-*")))


def soon(check: Callable[[], bool], limit_s: float = 30.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not check() and time.monotonic() < deadline:
        time.sleep(0.05)
    return check()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An adb server of the tests' own, with keys of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", port)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("ANDROID_SERIAL", raising=False)
        command = ["adb", "-P", port, "nodaemon", "server"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert soon(lambda: socket.socket().connect_ex(("127.0.0.1", int(port))) == 0)
            yield
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def attach(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Phone]]:
    """Makes a phone that adb sees."""
    attached: list[Phone] = []

    def make() -> Phone:
        folder = tmp_path / f"phone{len(attached)}"
        folder.mkdir()
        made = Phone(folder, Daemon(folder / "bin").__enter__())
        attached.append(made)
        return made

    yield make
    for each in attached:
        subprocess.run(["adb", "disconnect", each.serial], capture_output=True, timeout=20, check=False)
        each.daemon.__exit__(None, None, None)


def connect(phone: Phone) -> None:
    subprocess.run(["adb", "connect", phone.serial], capture_output=True, timeout=20, check=True)


@pytest.fixture
def pixel(attach: Callable[[], Phone], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Phone:
    """A phone that can be used."""
    made = attach()
    monkeypatch.setattr(client, "PLACE", str(made.place))
    monkeypatch.setattr(device, "PLACE", str(made.place))
    monkeypatch.setattr(termux, "TERMUX", str(tmp_path / "termux"))
    connect(made)
    assert soon(lambda: "\tdevice" in subprocess.check_output(["adb", "devices"], text=True))
    return made


def relu_job(folder: Path, name: str = "relu", **changes: Any) -> Job:
    model = folder / f"{name}.tflite"
    model.write_bytes(tflite_relu())
    fields: dict[str, Any] = {"min_time_s": 0.1, "min_runs": 20, **changes}
    return Job(model=model, runtime="tflite", target="t", variant=name, precision="fp32", **fields)


def short_job(folder: Path, **changes: Any) -> Job:
    """One that ends after one block, of which the tool says that it took 0.1 s."""
    return relu_job(folder, max_time_s=0.1, **changes)


def given(count: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(count, *SHAPE[1:])).astype(np.float32)


def test_standard_input_and_output_are_kept_as_they_are(pixel: Phone) -> None:
    blob = bytes(range(256)) * 4096
    command = ["adb", "-s", pixel.serial, "shell", "-T", "cat"]
    assert subprocess.run(command, input=blob, capture_output=True, timeout=20, check=True).stdout == blob


def test_the_tool_on_the_phone_measures_and_computes(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    inputs = given()
    job = relu_job(tmp_path, inputs=inputs, outputs=tmp_path / "y.npy", threads=2, macs=7)
    seen: list[str] = []
    device = AdbDevice()
    m = device.measure(job, progress=lambda doing, done, total: seen.append(doing))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.maximum(inputs, 0))
    assert m.device == device.name == f"adb:{pixel.serial}"
    assert len(m.samples_ms) >= 20
    assert m.p50_ms == 1.0
    assert m.steady
    assert m.runs == 100 * len(m.samples_ms)
    assert (m.load_ms, m.first_ms, m.threads, m.macs) == (1.25, 4.1, 2, 7)
    assert m.warm
    assert len(m.model_sha256) == 64
    assert Measurement.from_json(m.to_json_line()) == m
    assert list(dict.fromkeys(seen)) == ["checking outputs", "loading", "warming up", "measuring"]
    tool = m.options["benchmark_model"]
    assert tool["sample"] == "median of a block"
    assert tool["delegates"] == ["XNNPACK"]
    assert tool["block_p95_ms"] == [3.9] * len(m.samples_ms)
    assert len(tool["sha256"]) == 64
    assert m.runtime_version == f"benchmark_model {tool['sha256'][:12]}"
    # What is timed is the first of the inputs, on the threads asked for, and nothing that slows it down.
    timed = [call for call in pixel.calls() if "--output_filepath" not in call]
    assert all("--num_threads=2" in call and "--input_layer_shape=1,3,64,64" in call for call in timed)
    assert "profiling" not in " ".join(timed)
    assert pixel.is_clean()


@pytest.mark.network
def test_mobilenet_gives_there_what_it_gives_here(pixel: Phone, mobilenet: Known, tmp_path: Path) -> None:
    pixel.install_tool()
    AdbDevice(pixel.serial).measure(mobilenet.job(tmp_path / "there.npy"))
    assert mobilenet.is_given_by(tmp_path / "there.npy")
    assert pixel.is_clean()


def test_the_phones_state_is_recorded(pixel: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixel.install_tool()
    monkeypatch.setattr(device, "_STATE_EVERY_S", 0.0)
    m = AdbDevice(pixel.serial).measure(short_job(tmp_path))
    about = m.options["phone"]
    assert about["model"] == "Maker Phone 8"
    assert about["before"] == {
        "airplane_mode": True,
        "wakefulness": "Awake",
        "plugged": ["USB"],
        "battery": "charging",
        "battery_percent": 84,
        "battery_temperature_c": 32.6,
        "thermal_status": "none",
    }
    assert about["after"] == about["before"]
    assert (m.cpu_model, m.os) == ("Chips G3", "Android 14")
    assert m.throttled is False
    assert (m.temperature_c_before, m.temperature_c_after) == (41.5, 41.5)
    assert m.telemetry is not None
    # Before the block, after it since the time for that has come, and at the end.
    assert [reading.battery_percent for reading in m.telemetry] == [84, 84, 84]
    assert m.telemetry[0].at_s <= 0 < m.telemetry[1].at_s < m.telemetry[2].at_s


def test_a_phone_that_slows_itself_down_makes_no_result(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    pixel.say("thermalservice", THERMAL.replace("Thermal Status: 0", "Thermal Status: 2"))
    pixel.say("power", "  mWakefulness=Asleep\n")
    m = AdbDevice(pixel.serial).measure(short_job(tmp_path))
    assert m.throttled
    assert "thermal status moderate" in m.reason
    assert m.options["phone"]["after"]["wakefulness"] == "Asleep"


def test_a_phone_that_tells_nothing_is_measured_all_the_same(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    for command in ("dumpsys", "settings", "getprop"):
        executable(pixel.commands / command, "#!/bin/sh\necho 'no such service' >&2; exit 20\n")
    m = AdbDevice(pixel.serial).measure(short_job(tmp_path))
    assert m.throttled is None
    assert set(m.options["phone"]["before"].values()) == {None}
    assert m.samples_ms == (1.0,)


def test_a_tool_that_is_given_is_brought_and_taken_away(pixel: Phone, tmp_path: Path) -> None:
    binary = pixel.install_tool(tmp_path / "build")
    binary.chmod(0o644)
    m = AdbDevice(pixel.serial, benchmark_binary=binary).measure(short_job(tmp_path))
    assert m.p50_ms == 1.0
    assert pixel.is_clean()
    assert sorted(path.name for path in pixel.place.iterdir()) == ["compute.py"]


def test_a_model_is_pinned_to_cores(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    masks = tmp_path / "masks.txt"
    executable(pixel.commands / "taskset", f'#!/bin/sh\necho "$1" >>{masks}\nshift\nexec "$@"\n')
    m = AdbDevice(pixel.serial).measure(short_job(tmp_path, cores="0"))
    assert set(masks.read_text().split()) == {"1"}
    assert (m.cores, m.cpu_count) == ((0,), 1)
    with pytest.raises(ConfigError, match="there are no cores 900"):
        AdbDevice(pixel.serial).measure(relu_job(tmp_path, cores="900"))


def test_two_models_are_timed_in_turns(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    fast, slow = relu_job(tmp_path, "relu"), relu_job(tmp_path, "slow")
    a, b, comparison = AdbDevice(pixel.serial).compare(fast, slow)
    assert (a.variant, b.variant) == ("relu", "slow")
    assert comparison.differs
    assert comparison.ratio == 2.0
    assert comparison.pairs == len(a.samples_ms) == len(b.samples_ms)
    assert pixel.is_clean()


def test_a_tool_without_outputs_is_refused(pixel: Phone, tmp_path: Path) -> None:
    tool = pixel.install_tool()
    executable(tool, "#!/bin/sh\necho 'WARN: Unconsumed cmdline flags: --output_filepath=x'\n")
    job = relu_job(tmp_path, inputs=given(1), outputs=tmp_path / "y.npy")
    with pytest.raises(
        DeviceError, match=r"writes no outputs: it does not know --output_filepath=x"
    ) as caught:
        AdbDevice(pixel.serial).measure(job)
    assert "--benchmark-binary" in (caught.value.hint or "")
    with pytest.raises(DeviceError, match="which is no report"):
        AdbDevice(pixel.serial).measure(relu_job(tmp_path))
    assert not (tmp_path / "y.npy").exists()


def test_a_tool_older_than_the_model_says_so(pixel: Phone, tmp_path: Path) -> None:
    said = "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '9'."
    executable(
        pixel.install_tool(),
        f'#!/bin/sh\necho "{said}" >&2\necho "ERROR: Benchmarking failed." >&2\nexit 1\n',
    )
    with pytest.raises(DeviceError, match=r"is older than relu\.tflite: Didn't find op") as caught:
        AdbDevice(pixel.serial).measure(relu_job(tmp_path))
    assert "newer" in (caught.value.hint or "")


def test_jobs_that_the_tool_cannot_run_are_refused(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    device = AdbDevice(pixel.serial)
    with pytest.raises(ConfigError, match="takes no options of an interpreter: num_threads"):
        device.measure(relu_job(tmp_path, options={"num_threads": 1}))
    with pytest.raises(ConfigError, match="the inputs are float64"):
        device.measure(relu_job(tmp_path, inputs=given().astype(np.float64)))
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(256)))
    with pytest.raises(ConfigError, match=r"wrong\.tflite is no TFLite file"):
        device.measure(replace(relu_job(tmp_path), model=wrong, inputs=given()))
    assert pixel.is_clean()


def test_a_full_phone_says_so(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    pixel.daemon.full = True
    with pytest.raises(DeviceError, match=r"has no space left for relu\.tflite") as caught:
        AdbDevice(pixel.serial).measure(relu_job(tmp_path))
    assert "free" in (caught.value.hint or "")
    assert pixel.is_clean()


@pytest.mark.parametrize("fault", ["drop_at", "cut_at"])
def test_a_run_that_is_cut_off_does_not_count(pixel: Phone, tmp_path: Path, fault: str) -> None:
    pixel.install_tool()
    setattr(pixel.daemon, fault, b"Inference timings")
    with pytest.raises(DeviceError, match="was cut off in the middle of a run, which does not count"):
        AdbDevice(pixel.serial).measure(relu_job(tmp_path))
    setattr(pixel.daemon, fault, None)
    assert pixel.is_clean()


def running(phone: Phone) -> int:
    """The process of a tool that hangs, once it does."""
    file = phone.place / "running"
    assert soon(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def is_gone(process: int) -> bool:
    return soon(lambda: not psutil.pid_exists(process))


@pytest.mark.parametrize("killed", ["client", "its adb"])
def test_a_client_that_is_killed_leaves_nothing(pixel: Phone, tmp_path: Path, killed: str) -> None:
    pixel.install_tool()
    (pixel.place / "hang").touch()
    job = relu_job(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from edgecnn.devices.android import client, device; from edgecnn.devices.job import Job\n"
        "device.PLACE = client.PLACE = sys.argv[1]\n"
        "device.AdbDevice(sys.argv[2]).measure(Job(Path(sys.argv[3]), 'tflite', 't', 'v', 'fp32'))\n"
    )
    command = [sys.executable, "-c", code, str(pixel.place), pixel.serial, str(job.model)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    ) as client:
        try:
            process = running(pixel)
            if killed == "its adb":
                for child in psutil.Process(client.pid).children():
                    child.kill()
                assert "was cut off" in client.communicate(timeout=30)[1]
        finally:
            client.kill()
    assert is_gone(process)
    assert pixel.is_clean()


def test_a_daemon_that_dies_leaves_nothing(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    with Shell(choose("adb", pixel.serial)) as shell:
        (pixel.place / "hang").touch()
        assert shell._process.stdin
        shell._process.stdin.write(f"{pixel.place}/benchmark_model\n".encode())
        shell._process.stdin.flush()
        process = running(pixel)
        pixel.daemon.die()
        assert is_gone(process)
        with pytest.raises(DeviceError, match="was cut off"):
            shell.run("true")
    assert pixel.is_clean()


def test_a_silent_phone_is_given_up(pixel: Phone, tmp_path: Path) -> None:
    pixel.install_tool()
    (pixel.place / "hang").touch()
    with pytest.raises(DeviceError, match=r"has reported nothing for 0\.5 s"):
        AdbDevice(pixel.serial).measure(relu_job(tmp_path, timeout_s=0.5))
    assert is_gone(running(pixel))
    assert pixel.is_clean()


def test_what_a_killed_phone_left_is_removed_by_the_next(pixel: Phone) -> None:
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    left, kept = pixel.place / f"edgecnn-job-{ended}-x", pixel.place / f"edgecnn-job-{os.getpid()}-x"
    others = pixel.place / "edgecnn-job-results"
    for folder in (left, kept, others):
        folder.mkdir()
    with Shell(choose("adb", pixel.serial)) as shell:
        assert not left.exists()
        assert kept.exists()
        assert others.exists()
        assert shell.run("pwd") == (0, shell.folder)


def test_commands_keep_their_words_status_and_errors(pixel: Phone) -> None:
    with Shell(choose("adb", pixel.serial)) as shell:
        assert shell.run("printf", "%s|", "a b", "$HOME", "it's", '"\\n"') == (0, 'a b|$HOME|it\'s|"\\n"|')
        assert shell.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\nerr")
        assert shell.run("sh", "-c", "cat; echo $(pwd)") == (0, shell.folder)
        status, said = shell.run("no_such_command")
        assert status == 127
        assert "not found" in said


def test_no_phone_and_several(attach: Callable[[], Phone], server: None) -> None:
    with pytest.raises(DeviceError, match="adb sees no phone") as none:
        AdbDevice().probe()
    assert "USB debugging" in (none.value.hint or "")
    assert attached()[0] == ["local"]
    assert "adb sees none: plug it in" in (attached()[1] or "")
    one, other = attach(), attach()
    connect(one)
    connect(other)
    with pytest.raises(ConfigError, match=f"adb sees 2 phones: .*{one.serial}") as several:
        AdbDevice().probe()
    assert (several.value.hint or "").startswith("name one: adb:127.0.0.1:")
    assert set(phones()) == {f"adb:{one.serial}", f"adb:{other.serial}"}
    assert attached()[1] is None
    with pytest.raises(DeviceError, match=r"adb sees no phone 127\.0\.0\.1:9") as unknown:
        AdbDevice("127.0.0.1:9").probe()
    assert "adb connect 127.0.0.1:9" in (unknown.value.hint or "")


def test_a_phone_that_has_not_allowed_this_computer(attach: Callable[[], Phone]) -> None:
    made = attach()
    made.daemon.unauthorized = True
    connect(made)
    with pytest.raises(DeviceError, match="has not allowed this computer to debug it") as caught:
        AdbDevice().probe()
    assert caught.value.hint == "unlock the phone, and confirm the question on it"


def install_termux(pixel: Phone, files: Path) -> None:
    """Python as Termux has it, and a run-as that lets adb in."""
    executable(files / "usr/bin/python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (files / "usr/bin/sh").symlink_to("/bin/sh")
    (files / "usr/tmp").mkdir()
    (files / "home").mkdir()
    executable(pixel.commands / "run-as", '#!/bin/sh\n[ "$1" = com.termux ] || exit 1\nshift\nexec "$@"\n')


def test_python_under_termux_measures_and_computes(pixel: Phone, tmp_path: Path) -> None:
    install_termux(pixel, tmp_path / "termux")
    inputs = given(2)
    job = relu_job(tmp_path, inputs=inputs, outputs=tmp_path / "y.npy")
    m = AdbDevice().measure(job)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.maximum(inputs, 0))
    assert m.device == f"adb:{pixel.serial}"
    assert len(m.samples_ms) >= 20
    assert m.runtime_version
    assert m.throttled is False
    assert (m.cpu_model, m.os) == ("Chips G3", "Android 14")
    assert m.options["phone"]["before"]["battery_percent"] == 84
    assert soon(lambda: not list((tmp_path / "termux/usr/tmp").iterdir()))
    assert pixel.is_clean()


@pytest.fixture
def arm(pixel: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """A phone whose processor is emulated: what is unpacked there has a loader that starts the emulator."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("needs qemu-aarch64")
    try:
        system = fetch_system(silent)
    except MissingDependency as error:
        pytest.skip(str(error))
    monkeypatch.setattr(linux, "_SHELL", "/bin/sh")
    root = tmp_path / "root"
    root.mkdir()
    lay_out(system, open_cpu("cortex-a76"), root)
    executable(pixel.commands / "uname", "#!/bin/sh\necho aarch64\n")
    wrapped = f'#!/bin/sh\nexec {emulator} -cpu cortex-a76 -L {root} "$0.real" "$@"\n'
    executable(tmp_path / "loader", wrapped)
    executable(
        pixel.commands / "tar",
        f'#!/bin/sh\n{shutil.which("tar")} "$@" || exit 1\ncd "$4/lib" || exit 1\n'
        f"mv ld-linux-aarch64.so.1 ld-linux-aarch64.so.1.real\ncp {tmp_path}/loader ld-linux-aarch64.so.1\n",
    )
    return pixel


@pytest.mark.network
def test_python_with_its_own_libraries_measures_and_computes(arm: Phone, tmp_path: Path) -> None:
    job = relu_job(tmp_path, inputs=given(2), outputs=tmp_path / "y.npy", min_runs=3, max_time_s=5)
    with pytest.raises(MissingDependency) as caught:
        AdbDevice().measure(job)
    assert f"edgecnn devices adb:{arm.serial} --setup tflite" in (caught.value.hint or "")
    AdbDevice().setup("tflite")
    assert AdbDevice().probe().runtimes["tflite"] is not None
    m = AdbDevice().measure(job)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.maximum(given(2), 0))
    assert m.cpu_arch == "aarch64"
    assert m.options["python"] == "with its own libraries, experimental"
    assert arm.is_clean()
    assert [path.name for path in arm.place.iterdir()] == ["edgecnn-linux"]


def test_what_cannot_be_brought(pixel: Phone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(pixel.commands / "uname", "#!/bin/sh\necho armv8l\n")
    with pytest.raises(ConfigError, match="is armv8l, and what could be brought there is for aarch64"):
        AdbDevice().setup("tflite")
    executable(pixel.commands / "uname", "#!/bin/sh\necho aarch64\n")
    bare = tmp_path / "system"
    (bare / "usr" / "bin").mkdir(parents=True)
    (bare / "usr" / "bin" / "python3.11").touch()
    monkeypatch.setattr(linux, "fetch_system", lambda progress: System(bare, "aarch64"))
    with pytest.raises(DeviceError, match="does not run what was brought"):
        AdbDevice().setup("tflite")
    executable(pixel.commands / "tar", "#!/bin/sh\necho 'tar: No space left on device' >&2; exit 1\n")
    with pytest.raises(DeviceError, match="No space left") as caught:
        AdbDevice().setup("tflite")
    assert "free 100 MB" in (caught.value.hint or "")
    assert pixel.is_clean()
    assert not list(pixel.place.iterdir())


@pytest.mark.parametrize(
    ("said", "words", "hint"),
    [
        ("run-as: unknown package: com.termux", "no Termux", "install it"),
        ("run-as: package not debuggable: com.termux", "a Termux that adb may not enter", "sshd"),
        ("ls: /data/x/python3: No such file or directory", "no Python in its Termux", "pkg install"),
        ("run-as: something else", "no Termux that answers: run-as: something else", "pkg install"),
    ],
)
def test_neither_tool_nor_python(pixel: Phone, tmp_path: Path, said: str, words: str, hint: str) -> None:
    executable(pixel.commands / "run-as", f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    tflite = relu_job(tmp_path)
    with pytest.raises(MissingDependency, match=f"has no benchmark_model and {words}") as caught:
        AdbDevice().measure(tflite)
    assert "--benchmark-binary" in (caught.value.hint or "")
    # What is on the phone for tflite does not help another runtime.
    binary = pixel.install_tool()
    other = replace(tflite, runtime="onnxruntime")
    with pytest.raises(MissingDependency, match=f"^adb:{pixel.serial} has {words}") as caught:
        AdbDevice().measure(other)
    assert hint in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="runs models for tflite"):
        AdbDevice(benchmark_binary=binary).measure(other)


def test_a_runtime_that_termux_lacks_is_named() -> None:
    device = TermuxDevice(client.Adb("adb", "1"))
    assert "pkg install" in (device.missing("onnxruntime", "no module").hint or "")
    assert "--benchmark-binary" in (device.missing("tflite", "no module").hint or "")
    assert device.refusal(1, "something else") is None
    lost = device.refusal(1, "error: device '1' not found")
    assert isinstance(lost, DeviceError)
    assert "cut off" in str(lost)


def test_a_phone_says_what_it_is_and_has(pixel: Phone, tmp_path: Path) -> None:
    probe = AdbDevice().probe()
    assert set(probe.runtimes.values()) == {None}
    assert any("--benchmark-binary" in note for note in probe.notes)
    assert (probe.about["cpu_model"], probe.about["os"], probe.about["airplane_mode"]) == (
        "Chips G3",
        "Android 14",
        True,
    )
    pixel.install_tool()
    probe = AdbDevice().probe()
    assert probe.runtimes["tflite"] == "by benchmark_model"
    assert [note.partition(":")[0] for note in probe.notes] == ["for onnxruntime"]


def test_addresses_and_files_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for serial in ("", "-s", "a b"):
        with pytest.raises(ConfigError, match="is no serial number"):
            AdbDevice(serial)
    with pytest.raises(ConfigError, match="there is no file"):
        AdbDevice(benchmark_binary=tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="there is no adb here") as caught:
        AdbDevice()
    assert "apt-get install adb" in (caught.value.hint or "")
    seen, why = attached()
    assert seen == ["local"]
    assert "apt-get install adb" in (why or "")


def facts_of(*khz: int | None) -> phone.Facts:
    frequencies = {core: None if value is None else value / 1000 for core, value in enumerate(khz)}
    return phone.Facts(None, None, None, None, None, frequencies)


def test_cores_by_kind_and_number() -> None:
    pixel_8 = facts_of(*[1704000] * 4, *[2367000] * 4, 2914000)
    assert phone.cores_of("little", pixel_8) == [0, 1, 2, 3]
    assert phone.cores_of("big", pixel_8) == [4, 5, 6, 7, 8]
    assert phone.cores_of("8", pixel_8) == [8]
    assert phone.cores_of("0-1,4", pixel_8) == [0, 1, 4]
    with pytest.raises(ConfigError, match="there are no cores 7-9"):
        phone.cores_of("7-9", pixel_8)
    with pytest.raises(ConfigError, match="there are no big cores: 0-3 are all of 2000 MHz"):
        phone.cores_of("big", facts_of(*[2000000] * 4))
    with pytest.raises(ConfigError, match="does not tell which cores are big"):
        phone.cores_of("big", facts_of(None, None))


def test_what_a_phone_says_of_its_cores() -> None:
    folder = "/sys/devices/system/cpu"
    said = {
        "maker": "Google",
        "model": "Pixel 8",
        "chip_maker": "",
        "chip": "",
        "board": "zuma",
        "android": "14",
        "machine": "aarch64",
        "cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm sve\nCPU part\t: 0xd46\n",
        "cores": f"{folder}/cpu0\n{folder}/cpu1\n{folder}/cpu10\n",
        "top_khz": f"{folder}/cpu0/cpufreq/cpuinfo_max_freq:1704000\n"
        f"{folder}/cpu10/cpufreq/cpuinfo_max_freq:2914000\n",
    }
    facts = phone.describe_facts(said)
    assert facts.top_mhz == {0: 1704.0, 1: None, 10: 2914.0}
    assert facts.cpu_features == ["asimd", "asimddp", "i8mm", "sve"]
    assert facts.cpu_model == "zuma"
    state = phone.describe_state(
        {
            "airplane_mode": "null",
            "battery": "",
            "thermal": "",
            "power": "",
            "load": "3.1 2.0 1.0 1/900 77\n",
            "governor": f"{folder}/cpu0/cpufreq/scaling_governor:sched_pixel\n",
            "khz": f"{folder}/cpu0/cpufreq/scaling_cur_freq:820000\n"
            f"{folder}/cpu10/cpufreq/scaling_cur_freq:2914000\n",
        },
        at=5.0,
    )
    fields = phone.state_fields([state, state], 7.0, [0, 1])
    # Of the cores that the model may use, and not of the fastest that there is.
    assert fields["frequency_mhz_before"] == 820.0
    assert (fields["governor"], fields["load_after"], fields["throttled"]) == ("sched_pixel", 3.1, None)
    assert [reading["at_s"] for reading in fields["telemetry"]] == [-2.0, -2.0]
