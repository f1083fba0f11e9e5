"""Real models on the emulated cores, and everything that can be lacking for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from click.testing import CliRunner

from edgecnn import pipeline
from edgecnn.bundle.write import read, sha256_of
from edgecnn.cli.count import count as command
from edgecnn.count.cores import lay_out, open_cpu
from edgecnn.count.count import Count, count
from edgecnn.count.qemu import Qemu, build_plugin, find_qemu
from edgecnn.count.wheels import fetch_runtime
from edgecnn.data.calibration import calibration_images
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency, OutputError
from edgecnn.fetch.cache import data_dir
from edgecnn.fetch.debian import System, fetch_system
from edgecnn.fetch.kept import kept_folder
from edgecnn.progress import silent

REPEATS_TO = 1e-4
# Of a busy machine.
PATIENCE_S = 60


def lacking(*programs: str) -> str:
    return " ".join(program for program in programs if shutil.which(program) is None)


needs_qemu = pytest.mark.skipif(
    bool(lacking("qemu-aarch64", "gcc")), reason=f"lacking: {lacking('qemu-aarch64', 'gcc')}"
)
needs_compiler = pytest.mark.skipif(bool(lacking("gcc")), reason="lacking: gcc")


def export(folder: Path, **request: Any) -> Path:
    [artifact] = pipeline.export(
        "lenet5", ["tflite"], weights="random", output=folder, measure=False, **request
    )
    return artifact.path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def emulated() -> None:
    """Skips where the arm64 system is neither in the cache nor within reach."""
    try:
        find_qemu()
        fetch_runtime("tflite", fetch_system(silent), silent)
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def counted(bundle: Path, emulated: None) -> Count:
    return count(bundle, "cortex-a72")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "made"


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


T = TypeVar("T")


def wait_for(look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def bare_system(folder: Path) -> System:
    """What it is known by, and nothing in it."""
    (folder / "usr" / "bin").mkdir(parents=True)
    (folder / "usr" / "bin" / "python3.11").touch()
    (folder / "packages.txt").write_text("libc6_2.36-9+deb12u14_arm64.deb\nzlib1g_1.2_arm64.deb\n")
    return System(folder, "aarch64")


def one_clear_line(error: EdgeCNNError) -> str:
    assert "\n" not in str(error)
    return str(error)


@needs_qemu
@pytest.mark.network
def test_it_repeats(counted: Count, bundle: Path) -> None:
    again = count(bundle, "cortex-a72")
    assert again.instructions == pytest.approx(counted.instructions, rel=REPEATS_TO)
    assert max(counted.spread, again.spread) <= REPEATS_TO
    # fp32 on a core that multiplies four numbers at once.
    assert counted.macs / 8 < counted.instructions < counted.macs * 8
    assert (counted.cpu, counted.precision, counted.macs) == ("cortex-a72", "fp32", read(bundle).macs)
    assert re.fullmatch(r"ai-edge-litert \d+\.\d+\.\d+", counted.runtime)
    assert counted.python.startswith("3.11.")


@needs_qemu
@pytest.mark.network
def test_more_macs_take_more_instructions(counted: Count, tmp_path: Path) -> None:
    wider = count(export(tmp_path, width=2.0), "cortex-a72")
    assert wider.macs > 1.5 * counted.macs
    assert wider.instructions > 1.2 * counted.instructions


@needs_qemu
@pytest.mark.network
def test_the_core_is_the_one_asked_for(emulated: None, tmp_path: Path) -> None:
    """Only the younger one can add up four products of bytes in one instruction."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in calibration_images()[:4]:
        shutil.copy(path, photos)
    bundle = export(tmp_path, precision="int8", calibration=photos)
    a72, a76 = count(bundle, "cortex-a72"), count(bundle, "cortex-a76")
    assert a76.instructions < 0.9 * a72.instructions


@needs_qemu
@pytest.mark.network
def test_the_command_prints_what_was_counted(counted: Count, bundle: Path) -> None:
    done = CliRunner().invoke(command, [str(bundle), "--cpu", "cortex-a72"])
    assert done.exit_code == 0
    assert f"{counted.instructions / 1e6:,.3f} M" in done.stdout
    assert "instructions per inference" in done.stdout
    assert counted.qemu in done.stdout
    assert " ms" not in done.stdout
    document = json.loads(CliRunner().invoke(command, [str(bundle), "--cpu", "cortex-a72", "--json"]).stdout)
    assert document["instructions"] == pytest.approx(counted.instructions, rel=REPEATS_TO)
    assert len(document["runs"]) == 5
    assert document["instructions_per_mac"] == document["instructions"] / counted.macs


@needs_qemu
@pytest.mark.network
def test_a_broken_model_is_a_device_error(emulated: None, bundle: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(bundle, tmp_path / "broken")
    model = broken / "model.tflite"
    model.write_bytes(model.read_bytes()[:64] + bytes(1000))
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["files"]["model.tflite"]["sha256"] = sha256_of(model)
    (broken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DeviceError, match=r"tflite with model.tflite on an emulated cortex-a72") as caught:
        count(broken, "cortex-a72")
    one_clear_line(caught.value)


@needs_qemu
@pytest.mark.network
def test_a_crash_names_its_signal(
    emulated: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("qemu-aarch64")
    script = f'case "$1" in -version|-help) exec {real} "$1";; esac; echo the last words; kill -SEGV $$'
    program(tmp_path / "bin", "qemu-aarch64", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(DeviceError, match="was ended by SIGSEGV: the last words"):
        count(bundle, "cortex-a72")


@needs_qemu
@pytest.mark.network
def test_a_guest_that_hangs_is_given_up(
    emulated: None, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("qemu-aarch64")
    script = f'case "$1" in -version|-help) exec {real} "$1";; esac; echo $$ > {tmp_path}/pid; exec sleep 60'
    program(tmp_path / "bin", "qemu-aarch64", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr("edgecnn.count.count._SILENT_S", 0.5)
    with pytest.raises(DeviceError, match=r"has reported nothing for 0\.5 s"):
        count(bundle, "cortex-a72")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@needs_qemu
@pytest.mark.network
def test_a_guest_ends_with_the_one_who_asked(emulated: None, bundle: Path, tmp_path: Path) -> None:
    endless = f"import edgecnn.count.count as c; c._RUNS = 10**6; c.count({str(bundle)!r}, 'cortex-a72')"
    asker = psutil.Popen([sys.executable, "-c", endless], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        counts = wait_for(lambda: next(tmp_path.glob("edgecnn-count-*/counts"), None))
        wait_for(lambda: counts.stat().st_size > 1000)
        [guest] = asker.children()
        assert "-plugin" in guest.cmdline()
    finally:
        asker.kill()
        asker.wait()
    guest.wait(timeout=PATIENCE_S)


@needs_qemu
@pytest.mark.network
def test_a_cache_with_a_comma_in_its_path(
    counted: Count, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU's options are split at commas."""
    (tmp_path / "one, two").mkdir()
    (tmp_path / "one, two" / "count").symlink_to(data_dir().with_name("count"))
    monkeypatch.setenv("EDGECNN_CACHE_DIR", str(tmp_path / "one, two"))
    assert count(bundle, "cortex-a72").instructions == pytest.approx(counted.instructions, rel=REPEATS_TO)


@needs_compiler
@pytest.mark.parametrize("version", ["7.2.22 (Debian 1:7.2+dfsg-7)", "9.0.0"])
def test_the_plugin_is_built_once(version: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = build_plugin(Qemu("qemu-aarch64", version), silent)
    assert plugin.read_bytes().startswith(b"\x7fELF")
    monkeypatch.setenv("PATH", "")
    assert build_plugin(Qemu("qemu-aarch64", version), silent) == plugin
    assert [path.name for path in empty_cache.iterdir()] == [plugin.parent.name]


def test_each_emulator_gets_a_plugin_that_it_takes() -> None:
    versions = ("6.2.0", "7.2.22 (Debian 1:7.2+dfsg-7)", "8.2.2", "9.0.0", "10.0.13")
    assert [Qemu("", version).interface for version in versions] == [1, 1, 1, 2, 2]


def test_no_emulator(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"^qemu-aarch64 is not installed") as caught:
        count(bundle, "cortex-a72")
    one_clear_line(caught.value)
    assert caught.value.hint == "apt-get install qemu-user"


def test_an_emulator_without_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = 'case "$1" in -version) echo qemu-aarch64 version 10.0.13;; *) echo -L path;; esac'
    program(tmp_path / "bin", "qemu-aarch64", answers)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingDependency, match=r"qemu-aarch64 10.0.13 cannot load plug-ins") as caught:
        find_qemu()
    assert "apt-get install qemu-user" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("compiler", "words"), [(None, "no C compiler"), ("echo stdio.h: No such file; exit 1", "No such file")]
)
def test_no_compiler_that_works(
    compiler: str | None,
    words: str,
    empty_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compiler is not None:
        program(tmp_path / "bin", "cc", compiler)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(MissingDependency, match=words) as caught:
        build_plugin(Qemu("qemu-aarch64", "7.2"), silent)
    one_clear_line(caught.value)
    assert caught.value.hint == "apt-get install gcc libc6-dev"
    assert list(empty_cache.iterdir()) == []


@pytest.mark.skipif(bool(lacking("dpkg-deb")), reason="lacking: dpkg-deb")
def test_a_system_that_cannot_be_had_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    program(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package python3-minimal'; exit 100")
    with pytest.raises(MissingDependency, match="Unable to locate package python3-minimal") as caught:
        fetch_system(silent)
    assert "apt's sources" in str(caught.value.hint)
    find = "for given; do case $given in *Dir::Cache=*) place=${given#*=};; esac; done"
    program(tmp_path / "bin", "apt-get", f"{find}; echo no > $place/archives/a.deb")
    with pytest.raises(MissingDependency, match=r"a\.deb cannot be unpacked") as caught:
        fetch_system(silent)
    one_clear_line(caught.value)
    assert list(empty_cache.iterdir()) == []


def test_a_folder_is_kept_whole_or_not_at_all(empty_cache: Path, tmp_path: Path) -> None:
    def fail(folder: Path, scratch: Path) -> None:
        (folder / "half").write_text("")
        raise DeviceError("something")

    with pytest.raises(DeviceError):
        kept_folder("name", fail)
    assert list(empty_cache.iterdir()) == []

    def meanwhile(folder: Path, scratch: Path) -> None:
        (folder / "mine").write_text("")
        (empty_cache / "name").mkdir()
        (empty_cache / "name" / "theirs").write_text("")

    assert [path.name for path in kept_folder("name", meanwhile).iterdir()] == ["theirs"]
    assert [path.name for path in empty_cache.iterdir()] == ["name"]


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECNN_CACHE_DIR", "/dev/null/cache")
    with pytest.raises(OutputError) as caught:
        kept_folder("name", lambda folder, scratch: None)
    assert "EDGECNN_CACHE_DIR" in str(caught.value.hint)


def test_a_runtime_that_is_not_installed(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecnn.count.wheels.version_of", lambda package: None)
    system = bare_system(tmp_path)
    with pytest.raises(MissingDependency, match="ai-edge-litert is not installed") as caught:
        fetch_runtime("tflite", system, silent)
    assert caught.value.hint == "pip install ai-edge-litert"


def test_wheels_that_cannot_be_had(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(tmp_path)),
        ("PIP_CONFIG_FILE", "/dev/null"),
    ):
        monkeypatch.setenv(name, value)
    system = bare_system(tmp_path)
    with pytest.raises(MissingDependency, match=r"ai-edge-litert .* for arm64 cannot be fetched") as caught:
        fetch_runtime("tflite", system, silent)
    one_clear_line(caught.value)
    assert list(empty_cache.iterdir()) == []


def test_unknown_core(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="unknown core 'cortex-a73'") as caught:
        count(bundle, "cortex-a73")
    assert "cortex-a72" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "part", "variant", "revision"), [("cortex-a72", "0xd08", 0, 3), ("cortex-a76", "0xd0b", 4, 1)]
)
def test_linux_says_which_core_it_is(
    name: str, part: str, variant: int, revision: int, tmp_path: Path
) -> None:
    """Part numbers: the cores' technical reference manuals, MIDR_EL1."""
    lay_out(bare_system(tmp_path / "system"), open_cpu(name), tmp_path)
    first, *others = (tmp_path / "proc" / "cpuinfo").read_text().split("\n\n")
    fields = dict(re.split(r"\s*: ", line) for line in first.splitlines())
    assert fields["CPU implementer"] == "0x41"
    assert fields["CPU part"] == part
    assert (int(fields["CPU variant"], 16), int(fields["CPU revision"])) == (variant, revision)
    assert ("asimddp" in fields["Features"].split()) == (name == "cortex-a76")
    assert len(others) == 3
