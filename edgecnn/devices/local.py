"""This machine as a device: the agent in a child process, started by the same interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import edgecnn.agent
from edgecnn.devices.agent_device import THREAD_VARIABLES, AgentDevice
from edgecnn.errors import MissingDependency
from edgecnn.progress import Progress

# What else Python reads from the environment traces, checks or prolongs a run; these say where packages are.
PYTHON_VARIABLES = ("PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH", "PYTHONUSERBASE")

# Runtimes that are not among the package's own dependencies, by the extra that brings them.
EXTRAS = {"openvino": "openvino"}


class LocalDevice(AgentDevice):
    """The machine that this process runs on."""

    name = "local"

    def start(
        self, folder: Path, threads: int, errors: IO[bytes], progress: Progress
    ) -> subprocess.Popen[bytes]:
        """As the base class says."""
        asked = str(folder) if (folder / "job.json").exists() else "--probe"
        return subprocess.Popen(
            [sys.executable, str(Path(edgecnn.agent.__file__).parent), asked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(threads),
        )

    def missing(self, runtime: str, said: str) -> MissingDependency:
        """As the base class says."""
        extra = EXTRAS.get(runtime)
        return MissingDependency(
            f"{runtime} cannot be imported: {said}",
            hint=f"pip install 'edgecnn[{extra}]'" if extra else "pip install edgecnn",
        )


LOCAL = LocalDevice()


def _environment(threads: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") or name in PYTHON_VARIABLES
    }
    return {**kept, **{name: str(threads) for name in THREAD_VARIABLES}}
