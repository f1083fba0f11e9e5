"""A folder that is there whole or not at all, whatever happens while it is made."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgecnn.bundle import folder as module
from edgecnn.bundle.folder import check_place, staged
from edgecnn.bundle.write import read_manifest
from edgecnn.errors import ConfigError, OutputError

MANIFEST = {
    "variant": "v", "target": "t", "runtime": "tflite", "device": "local", "options": {}, "precision": "fp32",
    "model_file": "m", "companion_files": [], "macs": 1, "params": 1, "weights": {}, "output": {},
    "command": [], "files": {"m": {"sha256": "00"}},
}  # fmt: skip


def make(
    place: Path, content: str = "new", *, force: bool = True, error: BaseException | None = None
) -> None:
    """A bundle by way of the staging folder, or an error when it is all but done."""
    with staged(place, force=force) as folder:
        fill(folder, content)
        if error:
            raise error


def fill(folder: Path, content: str = "new") -> None:
    (folder / "m").write_text(content)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))


def bundle(place: Path, content: str) -> Path:
    place.mkdir(parents=True)
    fill(place, content)
    return place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_it_appears_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "er" / "place"
    check_place(place, force=False)
    assert names(tmp_path) == []
    with staged(place, force=False) as folder:
        fill(folder)
        assert not place.exists()
        assert folder.parent == place.parent
    assert (place / "m").read_text() == "new"
    assert names(place.parent) == ["place"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "x")])
@pytest.mark.parametrize("old", [False, True])
def test_an_error_leaves_what_was_there(error: BaseException, old: bool, tmp_path: Path) -> None:
    place = tmp_path / "new" / "place"
    if old:
        bundle(place, "old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        make(place, error=error)
    assert names(tmp_path) == (["new"] if old else [])
    if old:
        assert names(place.parent) == ["place"]
        assert (place / "m").read_text() == "old"


def test_folders_that_others_use_meanwhile_stay(tmp_path: Path) -> None:
    place = tmp_path / "new" / "place"
    ours = staged(place, force=False)
    ours.__enter__()
    (place.parent / "other").mkdir()
    assert not ours.__exit__(ValueError, ValueError("x"), None)
    assert names(tmp_path / "new") == ["other"]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_at_either_rename(
    failing: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bundle(tmp_path / "place", "old")
    calls = 0
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise error
        rename(source, target)

    monkeypatch.setattr(module.os, "rename", fails)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        make(place)
    assert names(tmp_path) == ["place"]
    assert (place / "m").read_text() == "old"


def test_an_interrupt_while_the_old_one_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = bundle(tmp_path / "place", "old")
    rmtree = module.shutil.rmtree
    interrupted = False

    def once(path: Path, **keywords: Any) -> None:
        nonlocal interrupted
        if not interrupted and ".replaced-" in path.name:
            interrupted = True
            raise KeyboardInterrupt
        rmtree(path, **keywords)

    monkeypatch.setattr(module.shutil, "rmtree", once)
    with pytest.raises(KeyboardInterrupt):
        make(place)
    assert names(tmp_path) == ["place"]
    assert (place / "m").read_text() == "new"


CRASH = """
import os, sys
from pathlib import Path
from edgecnn.bundle.folder import staged
rename, left = os.rename, [int(sys.argv[2])]
def crash(source, target):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    rename(source, target)
os.rename = crash
with staged(Path(sys.argv[1]), force=True) as folder:
    (folder / "m").write_text("new")
    (folder / "manifest.json").write_text(sys.argv[3])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("renames", [0, 1])
def test_a_process_killed_at_either_rename(renames: int, tmp_path: Path) -> None:
    place = bundle(tmp_path / "place", "old")
    command = [sys.executable, "-c", CRASH, str(place), str(renames), json.dumps(MANIFEST)]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(names(tmp_path)) == 2
    assert place.exists() == (renames == 0)
    # The next one finds the old bundle in its place, and asks before it replaces it.
    with pytest.raises(ConfigError, match="exists already"):
        check_place(place, force=False)
    assert names(tmp_path) == ["place"]
    assert (place / "m").read_text() == "old"


def test_leftovers_of_the_living_and_of_others_stay(tmp_path: Path) -> None:
    place = tmp_path / "place"
    living = tmp_path / f".place.partial-{os.getpid()}-abcd"
    stay = [
        living,
        tmp_path / f".place2.partial-{dead_pid()}-abcd",
        tmp_path / f".place.other-{dead_pid()}-abcd",
        tmp_path / ".place.partial-x-y",
        tmp_path / ".place.toml",
    ]
    dead = tmp_path / f".place.partial-{dead_pid()}-abcd"
    for path in (*stay, dead):
        path.mkdir()
    check_place(place, force=False)
    assert names(tmp_path) == sorted(path.name for path in stay)
    # The number of a dead process, given to a younger one: in a fresh container, to this very one.
    os.utime(living, (1e9, 1e9))
    check_place(place, force=False)
    assert not living.exists()


def test_a_name_that_is_a_pattern(tmp_path: Path) -> None:
    place = tmp_path / "[a]*"
    (tmp_path / f".[a]*.partial-{dead_pid()}-abcd").mkdir()
    (tmp_path / f".a.partial-{dead_pid()}-abcd").mkdir()
    check_place(place, force=False)
    assert len(names(tmp_path)) == 1


def test_two_at_once_without_force(tmp_path: Path) -> None:
    place = tmp_path / "place"
    first = staged(place, force=False)
    fill(first.__enter__(), "first")
    make(place, "second", force=False)
    with pytest.raises(ConfigError, match="exists already"):
        first.__exit__(None, None, None)
    assert names(tmp_path) == ["place"]
    assert (place / "m").read_text() == "second"


def test_many_at_once_with_force(tmp_path: Path) -> None:
    place = bundle(tmp_path / "place", "old")
    failures: list[BaseException] = []

    def export(content: str) -> None:
        try:
            make(place, content)
        except (ConfigError, OutputError) as error:
            failures.append(error)  # another was quicker between two steps

    threads = [threading.Thread(target=export, args=(f"by {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) < len(threads)
    assert names(tmp_path) == ["place"]
    assert (place / "m").read_text().startswith("by ")
    read_manifest(place)


def test_something_else_came_to_be_there(tmp_path: Path) -> None:
    place = tmp_path / "place"
    ours = staged(place, force=True)
    fill(ours.__enter__())
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not a bundle"):
        ours.__exit__(None, None, None)
    assert names(tmp_path) == ["place"]
    assert names(place) == ["thesis.tex"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_bundle_is_never_replaced(force: bool, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ConfigError, match="is not a bundle"):
        check_place(place, force=force)
    fill(place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"did not write: notes\.txt"):
        check_place(place, force=force)
    (place / "notes.txt").rename(place / ".DS_Store")
    if force:
        check_place(place, force=True)
    link = tmp_path / "link"
    link.symlink_to(place)
    with pytest.raises(ConfigError, match="is not a bundle"):
        check_place(link, force=force)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "place", tmp_path / "file" / "deep" / "place"):
        with pytest.raises(OutputError, match="file is not a folder"):
            check_place(place, force=False)
        with pytest.raises(OutputError, match="cannot be written"), staged(place, force=False):
            pass
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        check_place(tmp_path / ("x" * 300), force=False)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(OutputError, match="dangling is not a folder"):
        check_place(tmp_path / "dangling" / "place", force=False)
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="cannot be written") as caught:
        check_place(tmp_path / "place", force=False)
    assert "permissions" in str(caught.value.hint)


def test_a_full_disk_and_a_full_temporary_folder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".place.partial-1" / "model.onnx"))
    with pytest.raises(OutputError, match="place cannot be written: the disk is full"):
        make(place, error=full)
    elsewhere = OSError(errno.ENOSPC, "No space left on device", "/scratch/job.json")
    with pytest.raises(OutputError, match=r"/scratch/job\.json: the disk is full"):
        make(place, error=elsewhere)
    assert names(tmp_path) == []
