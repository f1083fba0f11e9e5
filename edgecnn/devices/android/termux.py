"""Python under Termux, an app that brings a terminal and packages to a phone."""

from __future__ import annotations

import shlex

from edgecnn.devices.android.client import Shell
from edgecnn.devices.android.python import PhonePython
from edgecnn.errors import EdgeCNNError, MissingDependency, one_line

TERMUX = "/data/data/com.termux/files"
"""The only folder that Termux may use (https://github.com/termux/termux-packages/wiki/Termux-file-system-layout)."""
TOOL_HINT = "give Google's with --benchmark-binary FILE: https://tensorflow.org/lite/performance/measurement"
"""What to do where nothing on the phone runs models for tflite."""

_HINT = "in Termux on the phone: pkg install python python-numpy python-onnxruntime"
_BUILDS = "https://github.com/termux/termux-app/releases"


class TermuxDevice(PhonePython):
    """Python under Termux, reached as Termux's own user."""

    how = "Termux"

    def line(self, remote: str) -> str:
        """As the base class says."""
        environment = {
            "HOME": f"{TERMUX}/home",
            "PREFIX": f"{TERMUX}/usr",
            "TMPDIR": f"{TERMUX}/usr/tmp",
            "PATH": f"{TERMUX}/usr/bin:/system/bin",
        }
        variables = [f"{name}={value}" for name, value in environment.items()]
        words = ["run-as", "com.termux", "env", *variables, "sh", "-c", remote]
        return shlex.join(words)

    def closed(self, shell: Shell) -> EdgeCNNError | None:
        """Why adb may not enter it, or finds no Python there; None where all is well."""
        status, said = shell.run("run-as", "com.termux", "ls", f"{TERMUX}/usr/bin/python3")
        if status == 0:
            return None
        return self.refusal(status, said) or MissingDependency(
            f"{self.name} has no Termux that answers: {one_line(said)}", hint=_HINT
        )

    def missing(self, runtime: str, said: str) -> MissingDependency:
        """As the base class says. No package index has wheels for Android: its own packages, or none."""
        hints = {"tflite": TOOL_HINT, "onnxruntime": _HINT}
        return MissingDependency(
            f"{runtime} cannot be imported under Termux on {self.name}: {said}",
            hint=hints.get(runtime, "choose a target for tflite or onnxruntime"),
        )

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """As the base class says, and what run-as and the shell there say."""
        if (lost := self.cut_off(said)) is not None:
            return lost
        if "unknown package" in said or "is unknown" in said:
            return MissingDependency(
                f"{self.name} has no Termux", hint=f"install it from {_BUILDS}, then {_HINT}"
            )
        if "not debuggable" in said:
            return MissingDependency(
                f"{self.name} has a Termux that adb may not enter, since it is no debug build",
                hint=f"one from {_BUILDS}; or start sshd in this one: ssh:PHONE:8022",
            )
        if status == 127 or "No such file" in said or "not found" in said:
            return MissingDependency(f"{self.name} has no Python in its Termux", hint=_HINT)
        return super().refusal(status, said)
