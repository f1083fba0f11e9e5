"""Measurements over a real ssh connection, and every way it can fail. Each leaves nothing on the board."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import psutil
import pytest

import edgecnn.agent
from edgecnn.devices import remote
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.devices.ssh import SshDevice
from edgecnn.errors import ConfigError, DeviceError, MissingDependency
from tests.devices.conftest import Known
from tests.devices.sshd import Board, Proxy, free_port, needs_sshd, running

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
conv (float[1,3,64,64] x) => (float[1,8,64,64] y)
<float[8,3,3,3] w> { y = Conv<pads = [1, 1, 1, 1]>(x, w) }
"""
REPOSITORY = Path(edgecnn.agent.__file__).parents[2]
# The server ends what belongs to a closed connection within milliseconds; a busy machine takes its time.
SOON_S = 10.0


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    with running(tmp_path / "board", "-o ServerAliveInterval=1 -o ServerAliveCountMax=2") as it:
        monkeypatch.setenv("PATH", it.client_path)
        yield it


@pytest.fixture
def model(tmp_path: Path) -> Path:
    parsed = onnx.parser.parse_model(CONV)
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    del parsed.graph.initializer[:]
    parsed.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(parsed, tmp_path / "conv.onnx")
    return tmp_path / "conv.onnx"


def quick_job(model: Path, **changes: object) -> Job:
    fields: dict[str, object] = {"target": "t", "variant": "conv", "precision": "fp32", **changes}
    return Job(model, "onnxruntime", **{"min_time_s": 0.1, "min_runs": 20, **fields})  # type: ignore[arg-type]


@needs_sshd
def test_measures_and_computes_what_is_computed_here(board: Board, model: Path, tmp_path: Path) -> None:
    given = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    device = SshDevice(board.address)
    measured = []
    for where, at in (("here", LOCAL), ("there", device)):
        measured.append(at.measure(quick_job(model, inputs=given, outputs=tmp_path / f"{where}.npy")))
    np.testing.assert_array_equal(np.load(tmp_path / "there.npy"), np.load(tmp_path / "here.npy"))
    here, there = measured
    assert there.device == f"ssh:{board.address}"
    assert len(there.samples_ms) >= 20
    assert (there.model_sha256, there.runtime_version) == (here.model_sha256, here.runtime_version)
    assert board.job_folders() == []  # already with the result, not some time after it
    assert board.left_after(SOON_S) == []


@needs_sshd
@pytest.mark.network
def test_mobilenet_gives_there_what_it_gives_here(board: Board, mobilenet: Known, tmp_path: Path) -> None:
    SshDevice(board.address).measure(mobilenet.job(tmp_path / "there.npy"))
    assert mobilenet.is_given_by(tmp_path / "there.npy")
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_a_runtime_older_than_the_model(board: Board, model: Path) -> None:
    newer = onnx.load(model)
    newer.ir_version = 99
    onnx.save(newer, model)
    device = SshDevice(board.address)
    hint = refused(device, model, r"onnxruntime on ssh:.* is older than conv\.onnx: .*IR version: 99")
    assert hint.startswith(f"edgecnn devices ssh:{board.address} --setup onnxruntime")
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_times_two_in_turns(board: Board, model: Path) -> None:
    job = quick_job(model, block_s=0.01)
    a, b, comparison = SshDevice(board.address).compare(job, job)
    assert comparison.pairs == len(a.block_runs) == len(b.block_runs) >= 10
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_a_probe_says_what_is_there(board: Board) -> None:
    probe = SshDevice(board.address).probe()
    assert probe.runtimes["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert probe.about["python_version"] == platform.python_version()
    assert board.left_after(SOON_S) == []


def refused(device: SshDevice, model: Path, words: str) -> str:
    """The hint of the error that a measurement ends with."""
    with pytest.raises(DeviceError, match=words) as caught:
        device.measure(quick_job(model))
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.hint


@needs_sshd
def test_host_keys_are_the_users_to_accept(board: Board, model: Path) -> None:
    device = SshDevice(board.address)
    board.new_key("other")
    board.trust(board.port, "other")
    hint = refused(device, model, "its host key is not the one it had before")
    command = hint.split(": ", 1)[1].split(" && ")[0]
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    hint = refused(device, model, "its host key is not known")
    assert hint.endswith(f"ssh -p {board.port} {board.user}@127.0.0.1")
    assert board.known_hosts.read_text() == ""
    assert board.processes() == []


@needs_sshd
def test_a_port_where_nothing_listens(board: Board, model: Path) -> None:
    device = SshDevice(f"127.0.0.1:{free_port()}")
    assert "sshd" in refused(device, model, "cannot be reached: nothing listens there for ssh")


@needs_sshd
def test_a_host_that_does_not_exist(board: Board, model: Path) -> None:
    device = SshDevice("pi@no-such-board.invalid")
    hint = refused(device, model, "cannot be reached: there is no host of that name")
    assert hint.endswith("ssh pi@no-such-board.invalid")


@needs_sshd
def test_a_key_or_a_user_that_may_not(board: Board, model: Path) -> None:
    device = SshDevice(f"nobody-here@127.0.0.1:{board.port}")
    hint = refused(device, model, "lets nobody in with this user and these keys")
    assert f"ssh-copy-id -p {board.port} nobody-here@127.0.0.1" in hint
    (board.folder / "authorized_keys").write_text("")
    refused(SshDevice(board.address), model, "lets nobody in with this user and these keys")


@needs_sshd
def test_no_python_there(board: Board, model: Path) -> None:
    (board.folder / "bin" / "python3").unlink()
    assert "3.9" in refused(SshDevice(board.address), model, "has no python3$")


@needs_sshd
def test_an_old_python_there(board: Board, model: Path) -> None:
    pretend = "import sys; sys.version_info = (3, 7, 3); sys.version = '3.7.3 (default)'; exec(sys.argv[3])"
    board.python3(f'exec {shlex.quote(sys.executable)} -c {shlex.quote(pretend)} "$@"')
    assert "3.9" in refused(SshDevice(board.address), model, r"has Python 3\.7\.3$")


@needs_sshd
def test_no_runtime_there(board: Board, model: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    board.python3(f'exec {shlex.quote(str(tmp_path / "bare/bin/python"))} "$@"')
    device = SshDevice(board.address)
    with pytest.raises(MissingDependency, match="onnxruntime cannot be imported on ssh:") as caught:
        device.measure(quick_job(model))
    assert str(caught.value.hint).startswith(f"edgecnn devices {device.name} --setup onnxruntime ")
    assert len(device.probe().notes) == len(device.probe().runtimes)
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_modules_in_the_home_folder_are_not_taken_for_the_librarys(board: Board, model: Path) -> None:
    # ssh starts in the home folder of the user's entry, which is not the board's HOME: so by the wrapper.
    (board.home / "json.py").write_text("raise SystemExit('not this one')")
    board.python3(f'cd {board.home} && exec {shlex.quote(sys.executable)} "$@"')
    assert SshDevice(board.address).measure(quick_job(model)).samples_ms


@needs_sshd
def test_a_full_disk(board: Board, model: Path, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare (util-linux) and user namespaces")
    mount = f"{shutil.which('mount')} -t tmpfs -o size=1m board {board.folder}/tmp"
    inner = f'{mount} && exec {shlex.quote(sys.executable)} "$@"'
    board.python3(f'exec {unshare} -rm /bin/sh -c {shlex.quote(inner)} python3 "$@"')
    inputs = np.zeros((40, 3, 64, 64), np.float32)  # 2 MB, once they are unpacked
    with pytest.raises(DeviceError, match=r"cannot be received there: .*No space left"):
        SshDevice(board.address).measure(quick_job(model, inputs=inputs))
    # A job that fits does run there.
    assert SshDevice(board.address).measure(quick_job(model)).samples_ms
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_a_stalled_connection_ends_on_both_sides(
    board: Board, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE_S", 2.0)
    monkeypatch.setattr(remote, "_BEAT_S", 0.5)
    proxy = Proxy(board.port)
    board.trust(proxy.port)
    stalled_at = []

    def stall(doing: str, done: float, total: float | None) -> None:
        if doing == "measuring" and not stalled_at:
            stalled_at.append(time.monotonic())
            proxy.stall()

    try:
        with pytest.raises(DeviceError, match="not responding"):
            SshDevice(f"{board.user}@127.0.0.1:{proxy.port}").measure(
                quick_job(model, min_time_s=60, max_time_s=60), progress=stall
            )
        # 2 questions a second apart, on a machine that may be busy; the job's own patience is 120 s.
        assert time.monotonic() - stalled_at[0] < 30
        # The server still holds its end of the connection: only the silence can have ended these.
        assert board.left_after(SOON_S, connections=False) == []
    finally:
        proxy.close()


def last_event(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout
    event: dict[str, object] = json.loads(process.stdout.read().splitlines()[-1])
    return event


CALLER = """
import sys; from pathlib import Path
from edgecnn.devices.job import Job; from edgecnn.devices.ssh import SshDevice
job = Job(Path(sys.argv[2]), 'onnxruntime', 't', 'v', 'fp32', min_time_s=60, max_time_s=60)
SshDevice(sys.argv[1]).measure(job, progress=lambda *step: print(*step, flush=True))
"""


@contextlib.contextmanager
def caller(board: Board, model: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that measures for a minute, and prints how far it is."""
    command = [sys.executable, "-c", CALLER, board.address, str(model)]
    # A killed caller cannot remove its job folder here.
    env = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout
    while not (line := process.stdout.readline()).startswith(words):
        assert line, "the caller ended early"


@needs_sshd
@pytest.mark.parametrize("seed", range(4))
def test_a_session_killed_at_a_random_moment_leaves_nothing(
    seed: int, board: Board, model: Path, tmp_path: Path
) -> None:
    generator = random.Random(seed)
    with caller(board, model, tmp_path) as process:
        wait_for_line(process, "loading")
        time.sleep(generator.uniform(0, 2))
        victims = [psutil.Process(process.pid)]
        if seed % 2:
            victims = victims[0].children()  # ssh
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        assert board.left_after(SOON_S) == []


@needs_sshd
def test_what_a_killed_receiver_leaves_is_removed_by_the_next(
    board: Board, model: Path, tmp_path: Path
) -> None:
    with caller(board, model, tmp_path) as process:
        wait_for_line(process, "measuring")
        receiver, agent = sorted(board.processes(), key=lambda each: each.create_time())[-2:]
        assert agent.ppid() == receiver.pid
        receiver.kill()
        _, alive = psutil.wait_procs([agent], timeout=SOON_S)
        assert alive == []
    [left] = board.job_folders()
    with caller(board, model, tmp_path) as process:
        wait_for_line(process, "measuring")
        [running_now] = board.job_folders()
        assert running_now != left
        # One that is in use is not removed.
        SshDevice(board.address).measure(quick_job(model))
        assert board.job_folders() == [running_now]
    assert board.left_after(SOON_S) == []


@needs_sshd
def test_a_receiver_that_is_asked_to_end_removes_its_folder(
    board: Board, model: Path, tmp_path: Path
) -> None:
    with caller(board, model, tmp_path) as process:
        wait_for_line(process, "measuring")
        receiver = min(board.processes(), key=lambda each: each.create_time())
        receiver.terminate()
        assert board.left_after(SOON_S) == []


@needs_sshd
def test_a_device_that_takes_nothing_is_given_up(
    board: Board, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_STUCK_S", 1.0)
    board.python3("exec /bin/sleep 60")
    inputs = (
        np.random.default_rng(0).normal(size=(200, 3, 64, 64)).astype(np.float32)
    )  # more than buffers hold
    with pytest.raises(DeviceError, match="has taken nothing for 1 s"):
        SshDevice(board.address).measure(quick_job(model, inputs=inputs))


def receiver_with(archive: bytes, header: dict[str, object], folder: Path) -> subprocess.Popen[bytes]:
    program = (Path(edgecnn.agent.__file__).parent / "receive.py").read_text()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdin
    process.stdin.write(json.dumps({"size": len(archive), "silence_s": 20, **header}).encode() + b"\n")
    process.stdin.write(archive)
    process.stdin.flush()
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="runs on boards, which are no Windows")
@pytest.mark.parametrize("name", ["../x", "job/../../x", "/x", "job//x", "link"])
def test_an_archive_that_would_leave_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(member)
    (tmp_path / "tmp").mkdir()
    with receiver_with(packed.getvalue(), {"env": {}, "packages": []}, tmp_path / "tmp") as process:
        event = last_event(process)
    assert event["event"] == "error"
    assert str(event["message"]).endswith(f"the archive holds {name}")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "address",
    ["", "pi@", "@host", "-oProxyCommand=x", "pi@-oProxyCommand=x", "a b", "host:", "host:0", "host:65536"],
)
def test_addresses_that_cannot_be_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is no host, or host and port"):
        SshDevice(address)


@needs_sshd
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("host", ["--", "host", "x"]),
        ("pi@host:2222", ["-p", "2222", "--", "pi@host", "x"]),
        ("pi@[fe80::1%eth0]:22", ["-p", "22", "--", "pi@fe80::1%eth0", "x"]),
    ],
)
def test_addresses_become_arguments(address: str, words: list[str]) -> None:
    assert SshDevice(address).command("x")[-len(words) :] == words
