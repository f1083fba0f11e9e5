"""A device that plain OpenSSH reaches: the user's configuration, agent, jump hosts and known hosts hold."""

from __future__ import annotations

import re
import shutil
import sys

from edgecnn.devices.remote import RemoteDevice
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency

_CONNECT_S = 10
# A peer that answers none of so many questions, so many seconds apart, is gone.
_ALIVE_S, _ALIVE_COUNT = 2, 3
# OpenSSH's own failures.
_FAILED = 255
_NOT_FOUND = 127


class SshDevice(RemoteDevice):
    """``ssh:[USER@]HOST[:PORT]``; HOST may be a name from the user's ssh configuration."""

    def __init__(self, address: str) -> None:
        """Take ``[USER@]HOST[:PORT]`` apart.

        Raises:
            ConfigError: it names no host, or looks like an option.
            MissingDependency: there is no ssh here.
        """
        found = re.fullmatch(
            r"((?:[^@\s-][^@\s]*@)?(?:\[[0-9A-Fa-f:.%]+\]|[^@\s:\[\]-][^@\s:\[\]]*))(?::(\d+))?", address
        )
        if found is None:
            raise ConfigError(
                f"'{address}' names no host",
                hint="ssh:USER@HOST or ssh:USER@HOST:PORT, as in ssh:pi@raspberrypi.local",
            )
        self.name = f"ssh:{address}"
        self._host, self._port = found.group(1).replace("[", "").replace("]", ""), found.group(2)
        self._ssh = shutil.which("ssh") or ""
        if not self._ssh:
            raise MissingDependency("there is no ssh here", hint="install OpenSSH's client")

    def command(self, remote: str) -> list[str]:
        """As the base class says. A key that is not known is never accepted without the user."""
        options = {
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(_CONNECT_S),
            "ServerAliveInterval": str(_ALIVE_S),
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            # Where nobody sits at a terminal, a question for a password would wait for ever.
            "BatchMode": "no" if sys.stdin is not None and sys.stdin.isatty() else "yes",
        }
        words = [self._ssh, "-T"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        if self._port:
            words += ["-p", self._port]
        return [*words, "--", self._host, remote]

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """As the base class says: ssh's own errors, and a host without Python."""
        lowered = said.lower()
        if status == _NOT_FOUND or (status != _FAILED and "not found" in lowered):
            return DeviceError(
                f"{self.name} has no python3",
                hint="install Python 3.9 or later there: apt-get install python3",
            )
        if status != _FAILED:
            return None
        plain = f"ssh {f'-p {self._port} ' if self._port else ''}{self._host}"
        host = self._host.rpartition("@")[2]
        known = f"[{host}]:{self._port}" if self._port else host
        for sign, why, hint in (
            (
                "identification has changed",
                "its host key is not the one it had before",
                f"if the board was set up anew: ssh-keygen -R '{known}', then {plain}",
            ),
            (
                "host key verification failed",
                "its host key is not known",
                f"connect once and compare the fingerprint: {plain}",
            ),
            (
                "could not resolve hostname",
                "there is no host of that name",
                f"check the name, or put HostName into ~/.ssh/config: {plain}",
            ),
            (
                "connection refused",
                "nothing listens there for ssh",
                "start sshd on the board, or give its port: ssh:HOST:PORT",
            ),
            (
                "timed out",
                f"no answer within {_CONNECT_S} s",
                f"is the board on, and on this network? {plain}",
            ),
            ("no route to host", "there is no way to it", "is the board on, and on this network?"),
            (
                "permission denied",
                "it lets nobody in with these keys",
                f"{plain.replace('ssh ', 'ssh-copy-id ', 1)}, or choose the key in ~/.ssh/config",
            ),
        ):
            if sign in lowered:
                return DeviceError(f"{self.name} cannot be reached: {why}", hint=hint)
        last = next((line.strip() for line in reversed(said.split("\n")) if line.strip()), "ssh failed")
        return DeviceError(f"{self.name} cannot be reached: {last}", hint=f"try {plain}")
