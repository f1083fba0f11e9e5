"""Progress where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from edgecnn.cli import console


def test_a_log_gets_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with console.progress_bar() as progress:
        for done in range(25):
            progress("judging int8", done, 50)
            now += 1
        progress("timing", 0, None)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["judging int8, 20% (10 s)", "judging int8, 40% (20 s)"]
    assert captured.out == ""


def test_short_work_leaves_a_log_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as progress:
        progress("judging int8", 1, 1)
    assert capsys.readouterr().err == ""
