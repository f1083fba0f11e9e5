"""Headless Chromium on a page, and how its tabs are closed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")


class Chromium:
    """A browser with one page; leaving the context ends it."""

    def __init__(self, address: str, *flags: str) -> None:
        assert EXECUTABLE
        self._folder = tempfile.TemporaryDirectory(prefix="edgecnn-chromium-", ignore_cleanup_errors=True)
        command = [EXECUTABLE, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += [
            f"--user-data-dir={self._folder.name}",
            "--remote-debugging-port=0",
            "--disable-dev-shm-usage",
        ]
        command += ["--disable-background-networking", "--disable-component-update", *flags, address]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def close_tabs(self) -> None:
        """Close every page, as a user would."""
        for page in self._ask("list"):
            if page["type"] == "page":
                self._ask(f"close/{page['id']}")

    def open_another_tab(self) -> None:
        """Open an empty page in front of the others."""
        self._ask("new?about:blank", "PUT")

    def _ask(self, what: str, method: str = "GET") -> Any:
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port_file.is_file():
            assert time.monotonic() < deadline, "Chromium has not started"
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}/json/{what}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as reply:
            text = reply.read()
        return json.loads(text) if what == "list" else text
