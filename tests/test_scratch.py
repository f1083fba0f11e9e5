"""What killed processes leave is removed, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgecnn import scratch as scratch_module
from edgecnn.scratch import scratch


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]; from edgecnn.scratch import scratch; "
        "held = scratch('test'); print(held.name, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    mine = tmp_path / f"edgecnn-test-{os.getpid()}-abc"
    others = tmp_path / "edgecnn-test-notapid-abc"
    for folder in (mine, others):
        folder.mkdir()

    def swept() -> set[str]:
        scratch_module._sweep.cache_clear()
        with scratch("next") as folder:
            assert Path(folder).is_dir()
        return {path.name for path in tmp_path.iterdir()}

    assert swept() == {left.name, mine.name, others.name}  # it may be another system's, and alive
    long_ago = time.time() - 2 * 3600
    for folder in (left, mine, others):
        os.utime(folder, (long_ago, long_ago))
    assert swept() == {mine.name, others.name}


def test_a_board_that_is_this_machine_leaves_them_alone() -> None:
    """It removes folders of its own prefix that nobody holds; these are held by nobody."""
    receiver = Path(scratch_module.__file__).with_name("agent") / "receive.py"
    found = re.search(r'^PREFIX = "(.+)"$', receiver.read_text(), re.MULTILINE)
    assert found
    with scratch("job") as folder:
        assert not Path(folder).name.startswith(found[1])
