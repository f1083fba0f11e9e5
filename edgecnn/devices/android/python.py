"""Python on a phone, reached through adb's shell."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from edgecnn.devices.android.client import Adb
from edgecnn.devices.remote import RemoteDevice
from edgecnn.errors import DeviceError, EdgeCNNError


class PhonePython(RemoteDevice):
    """A phone on which some Python can be started."""

    how: ClassVar[str]
    """Which Python it is, for the record."""

    def __init__(self, adb: Adb) -> None:
        self.name = adb.name
        self._adb = adb

    @abstractmethod
    def line(self, remote: str) -> str:
        """What adb's shell runs, so that ``remote`` is run where this Python is found as ``python3``."""

    def command(self, remote: str) -> list[str]:
        """As the base class says. -T keeps standard input and output as they are (adb's shell protocol)."""
        return [*self._adb.command, "shell", "-T", self.line(remote)]

    def refusal(self, status: int, said: str) -> EdgeCNNError | None:
        """As the base class says, and what adb says."""
        return self.cut_off(said) or super().refusal(status, said)

    def cut_off(self, said: str) -> DeviceError | None:
        """An error, where adb says that the phone is gone."""
        if "error: device" in said or "error: closed" in said:
            return DeviceError(f"{self.name} was cut off", hint="check the cable and: adb devices")
        return None
