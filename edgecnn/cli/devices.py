"""``edgecnn devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli.console import json_option, print_json, print_line, progress_bar
from edgecnn.errors import ConfigError, EdgeCNNError

if TYPE_CHECKING:
    from edgecnn.devices.device import Probe


@click.command(short_help="Say what can be measured on, and what it lacks.")
@click.argument("addresses", metavar="[DEVICE]...", nargs=-1)
@click.option("--setup", metavar="RUNTIME", type=click.Choice(["tflite", "onnxruntime", "openvino"]),
              help="Bring numpy and this runtime there, into a folder of their own.")  # fmt: skip
@json_option
def devices(addresses: tuple[str, ...], setup: str | None, as_json: bool) -> None:
    """Say what devices are, which runtimes they have, and what is missing on them.

    Without a name: this machine, and the phones that adb sees. Nothing is installed on a device unless
    --setup asks for it.

    \b
    edgecnn devices
    edgecnn devices ssh:pi@raspberrypi.local
    edgecnn devices ssh:pi@raspberrypi.local --setup tflite
    """
    from edgecnn.devices.address import attached, open_device

    if setup is not None and not addresses:
        raise ConfigError("--setup needs a device", hint=f"edgecnn devices ssh:USER@HOST --setup {setup}")
    found: list[tuple[str, Probe | EdgeCNNError]] = []
    asked, no_phone = (addresses, None) if addresses else attached()
    with progress_bar() as progress:
        for address in asked:
            device = open_device(address)
            if setup is not None:
                device.setup(setup, progress)
                click.echo(f"{setup} was brought to {address}", err=True)
            progress(f"asking {address}", 0, None)
            try:
                found.append((address, device.probe()))
            except EdgeCNNError as error:
                found.append((address, error))
    unreachable = [probe for _, probe in found if isinstance(probe, EdgeCNNError)]
    if as_json:
        print_json([_document(address, probe) for address, probe in found])
    else:
        _print(found)
        if no_phone is not None:
            print_line("phones", no_phone)
    if unreachable:
        raise unreachable[0]


def _print(found: list[tuple[str, Probe | EdgeCNNError]]) -> None:
    for address, probe in found:
        if isinstance(probe, EdgeCNNError) and len(found) == 1:
            continue  # the error itself comes last
        click.secho(address, bold=True)
        if isinstance(probe, EdgeCNNError):
            print_line("  unreachable", f"{probe}; {probe.hint}" if probe.hint else str(probe))
            continue
        told = [str(probe.about[key]) for key in ("cpu_model", "cpu_arch", "os") if probe.about.get(key)]
        if told:
            print_line("  machine", ", ".join(told))
        runtimes = [f"{name} {version}" for name, version in probe.runtimes.items() if version is not None]
        print_line("  runtimes", ", ".join(runtimes) or "none")
        for note in probe.notes:
            print_line("  missing", note)


def _document(address: str, probe: Probe | EdgeCNNError) -> dict[str, Any]:
    if isinstance(probe, EdgeCNNError):
        return {"device": address, "unreachable": str(probe), "hint": probe.hint}
    return {
        "device": address,
        "about": probe.about,
        "runtimes": probe.runtimes,
        "notes": list(probe.notes),
    }
