"""Devices by the text that names them on a command line and in target files."""

from __future__ import annotations

from edgecnn.devices.agent_device import AgentDevice
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError

FORMS = {
    "local": "this machine",
    "ssh:[USER@]HOST[:PORT]": "a board that ssh reaches",
}
"""What can be written, and what it means."""


def open_device(text: str) -> AgentDevice:
    """The device of that address; nothing is asked of it yet.

    Raises:
        ConfigError: text that is no address.
        MissingDependency: a tool that its kind needs is not installed here.
    """
    kind, _, rest = text.partition(":")
    if text == "local":
        return LOCAL
    if kind == "ssh":
        from edgecnn.devices.ssh import SshDevice

        return SshDevice(rest)
    raise ConfigError(f"unknown device '{text}'", hint=f"one of {', '.join(FORMS)}")
