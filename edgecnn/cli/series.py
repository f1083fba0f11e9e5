"""Several bundles, measured one after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecnn.cli.console import print_json, progress_bar
from edgecnn.cli.measured import document, print_measurement

if TYPE_CHECKING:
    from edgecnn.devices.address import Settings


def measure_series(
    bundles: list[Path],
    device: str | None,
    settings: Settings,
    output: Path | None,
    *,
    resume: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Measure bundles, keep what was measured and print it as it comes.

    Args:
        bundles: their folders.
        device: address of the device for all of them; None for those that their targets name.
        settings: how devices are reached.
        output: where measurements are kept; None for nowhere.
        resume: measure what is not there yet.
        as_json: print one document at the end.
        how: further arguments of `benchmark.bench`.

    Raises:
        ConfigError, MissingDependency, DeviceError, ParityError, OutputError: as `benchmark.bench` and
            `Series` do; what was measured before is kept.
    """
    from edgecnn import benchmark
    from edgecnn.bundle.write import read
    from edgecnn.devices.address import open_device
    from edgecnn.series import Series, question

    artifacts = [read(bundle) for bundle in bundles]
    addresses = [device or artifact.device for artifact in artifacts]
    places = {address: open_device(address, settings) for address in addresses}
    series = Series(output, resume=resume)
    documents = []
    with series.kept():
        for artifact, address in zip(artifacts, addresses, strict=True):
            asked = question(artifact, address, **how)
            measurement = series.find(asked)
            if measurement is None:
                with progress_bar() as progress:
                    measurement = benchmark.bench(
                        artifact.path, device=places[address], **how, progress=progress
                    )
                series.add(asked, measurement)
            if as_json:
                documents.append(document(measurement))
            else:
                print_measurement(measurement)
    if as_json:
        print_json({"measurements": documents})
    elif output is not None:
        click.echo(f"{len(series)} results are in {output}")
