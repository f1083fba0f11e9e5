"""A device that plain OpenSSH reaches: the user's configuration, agent, jump hosts and known hosts hold."""

from __future__ import annotations

import re
import shlex
import shutil
import sys

from edgecnn.devices.agent_device import ending
from edgecnn.devices.remote import RemoteDevice
from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency, last_line

_CONNECT_S = 10
# A peer that answers none of so many questions, so many seconds apart, is gone.
_ALIVE_S, _ALIVE_COUNT = 2, 3
# The status of OpenSSH's own failures.
_FAILED = 255

# What it says of a connection that it had; one that it never had is "closed by remote host", too.
_LOST = "^Timeout, server .* not responding|^Connection to .* closed by|^client_loop: |^Read from remote host"

_ADDRESS = re.compile(
    r"((?:[^@\s-][^@\s]*@)?(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^@\s:\[\]-][^@\s:\[\]]*))(?::(\d{1,5}))?"
)


class SshDevice(RemoteDevice):
    """``ssh:[USER@]HOST[:PORT]``; HOST may be a name from the user's ssh configuration."""

    def __init__(self, address: str) -> None:
        """Take ``[USER@]HOST[:PORT]`` apart.

        Raises:
            ConfigError: it names no host, looks like an option, or has a port that cannot be.
            MissingDependency: there is no ssh here.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None or (found.group(2) and not 0 < int(found.group(2)) < 1 << 16):
            raise ConfigError(
                f"'{address}' is no host, or host and port",
                hint="ssh:USER@HOST or ssh:USER@HOST:PORT, as in ssh:pi@raspberrypi.local",
            )
        self.name = f"ssh:{address}"
        self._host, self._port = found.group(1).replace("[", "").replace("]", ""), found.group(2)
        self._ssh = shutil.which("ssh") or ""
        if not self._ssh:
            raise MissingDependency("there is no ssh here", hint="install OpenSSH's client")

    def command(self, remote: str) -> list[str]:
        """As the base class says. A host key that is not known is never accepted without the user."""
        options = {
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(_CONNECT_S),
            "ServerAliveInterval": str(_ALIVE_S),
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            # Where nobody sits at a terminal, a question for a password would wait for ever.
            "BatchMode": "no" if sys.stdin is not None and sys.stdin.isatty() else "yes",
            # A connection that the user shares is used, but others are not to hang on this one, which is
            # killed in the end.
            "ControlMaster": "no",
            # What the user may have set for sessions at a terminal.
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
        }
        words = [self._ssh, "-T"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        if self._port:
            words += ["-p", self._port]
        return [*words, "--", self._host, remote]

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """As the base class says, and ssh's own errors."""
        if status < 0:
            return DeviceError(
                f"{self.name} was lost: ssh {ending(status)}", hint="what ran there has ended; measure again"
            )
        if status != _FAILED:
            return super().refusal(status, said)
        last = last_line(said, "ssh failed")
        if re.search(_LOST, said, re.MULTILINE):
            return DeviceError(
                f"{self.name} was lost: {last}",
                hint="what ran there has ended; look at its power and network, and measure again",
            )
        where = [*(["-p", self._port] if self._port else []), self._host]
        plain = shlex.join(["ssh", *where])
        # By OpenSSH's own words; the first sign that is found counts.
        for sign, why, hint in (
            (
                "host key for .* has changed|remote host identification has changed",
                "its host key is not the one it had before",
                f"if the board was set up anew: {self._forget(said)} && {plain}",
            ),
            (
                "host key verification failed",
                "its host key is not known",
                f"connect once, and compare the fingerprint with the board's: {plain}",
            ),
            (
                "could not resolve hostname",
                "there is no host of that name",
                f"check the name, or put HostName into ~/.ssh/config: {plain}",
            ),
            (
                "connection refused",
                "nothing listens there for ssh",
                "start sshd on the board (sudo systemctl enable --now ssh), or give its port: ssh:HOST:PORT",
            ),
            (
                "timed out|no route to host|network is unreachable|host is down",
                "it does not answer",
                f"is the board on, and on this network? {plain}",
            ),
            (
                "permission denied|too many authentication failures",
                "it lets nobody in with this user and these keys",
                f"{shlex.join(['ssh-copy-id', *where])}, or name User and IdentityFile in ~/.ssh/config",
            ),
        ):
            if re.search(sign, said, re.IGNORECASE):
                return DeviceError(f"{self.name} cannot be reached: {why}", hint=hint)
        return DeviceError(f"{self.name} cannot be reached: {last}", hint=f"try {plain}")

    def _forget(self, said: str) -> str:
        """The command that removes the old key, from where ssh found it: a configuration may give the host
        another name, and name other files."""
        named = re.search(r"host key for (\S+) has changed", said, re.IGNORECASE)
        file = re.search(r"^Offending .*key in (.+):\d+\s*$", said, re.MULTILINE)
        host = self._host.rpartition("@")[2]
        name = named.group(1) if named else f"[{host}]:{self._port}" if self._port else host
        return shlex.join(["ssh-keygen", *(["-f", file.group(1)] if file else []), "-R", name])
