"""Devices by the text that names them on a command line and in target files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from edgecnn.devices.device import Device
from edgecnn.devices.local import LOCAL
from edgecnn.errors import ConfigError, DeviceError, MissingDependency

FORMS = {
    "local": "this machine",
    "ssh:[USER@]HOST[:PORT]": "a board that ssh reaches",
    "adb[:SERIAL]": "a phone that adb reaches",
    "browser[:webgpu|webnn]": "whatever opens the page",
}
"""What can be written, and what it means."""

_OF_KIND = {
    "benchmark_binary": "adb",
    "usb": "browser",
    "https": "browser",
    "host": "browser",
    "port": "browser",
}


@dataclass(frozen=True)
class Settings:
    """How a device is reached, beyond its address."""

    benchmark_binary: Path | None = None
    """adb: Google's ``benchmark_model`` for the phone; None to look for it there."""
    usb: bool = False
    """browser: a phone on USB reaches the page through adb."""
    https: bool = False
    """browser: with a certificate made for the occasion."""
    host: str | None = None
    """browser: the address to listen on; None for loopback."""
    port: int = 0
    """browser: of the server; 0 for any that is free."""
    announce: Callable[[str], None] | None = None
    """browser: given the lines that the user needs, such as the address and its QR code."""


def open_device(text: str, settings: Settings = Settings()) -> Device:
    """The device of that address; nothing is asked of it yet.

    Raises:
        ConfigError: text that is no address, or settings of another kind of device.
        MissingDependency: a tool that its kind needs is not installed here.
    """
    kind, _, rest = text.partition(":")
    for setting in fields(Settings):
        of = _OF_KIND.get(setting.name, kind)
        if of != kind and getattr(settings, setting.name) != setting.default:
            option = f"--{setting.name.replace('_', '-')}"
            raise ConfigError(f"{option} is for {of}, the device is {text}", hint=f"leave {option} out")
    if text == "local":
        return LOCAL
    if kind == "ssh":
        from edgecnn.devices.ssh import SshDevice

        return SshDevice(rest)
    if kind == "adb" and text != "adb:":
        from edgecnn.devices.android.device import AdbDevice

        return AdbDevice(rest or None, benchmark_binary=settings.benchmark_binary)
    if kind == "browser" and text != "browser:":
        from edgecnn.devices.browser.device import LOOPBACK, BrowserDevice

        return BrowserDevice(
            rest or "wasm",
            host=settings.host or LOOPBACK,
            port=settings.port,
            usb=settings.usb,
            https=settings.https,
            announce=settings.announce,
        )
    raise ConfigError(f"unknown device '{text}'", hint=f"one of {', '.join(FORMS)}")


def attached() -> tuple[list[str], str | None]:
    """The addresses of what needs no name, this machine and the phones that adb sees, and where there are
    none, why."""
    from edgecnn.devices.android.client import NO_PHONE
    from edgecnn.devices.android.device import phones

    try:
        seen = phones()
    except (MissingDependency, DeviceError) as error:
        return ["local"], f"{error}: {error.hint}" if error.hint else str(error)
    return ["local", *seen], None if seen else f"adb sees none: {NO_PHONE}"
