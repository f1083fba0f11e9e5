"""What every place that can time a model has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from edgecnn.devices.job import Job
from edgecnn.errors import ConfigError
from edgecnn.measurement import Comparison, Measurement
from edgecnn.progress import Progress, silent


@dataclass(frozen=True)
class Probe:
    """What a device says of itself."""

    about: dict[str, Any] = field(default_factory=dict)
    """Facts such as ``cpu_model``, ``cpu_arch``, ``os`` and ``python_version``; None for what it does not
    tell."""
    runtimes: dict[str, str | None] = field(default_factory=dict)
    """Version of each runtime that it can run, None for one that is not there."""
    notes: tuple[str, ...] = ()
    """What is missing there and how to mend it, a sentence each."""


class Device(ABC):
    """A place where models are timed."""

    name: str
    """Its address, which measurements carry: ``local``, ``ssh:pi@raspberrypi.local``, ``adb:SERIAL``."""

    @abstractmethod
    def measure(self, job: Job, *, progress: Progress = silent) -> Measurement:
        """Time one model.

        Raises:
            ConfigError: a model file that does not exist.
            MissingDependency: the runtime is not installed there; the hint says how to install it.
            DeviceError: the device cannot be reached, the runtime refuses the model or crashes on it, or it
                has been silent for ``job.timeout_s``.
        """

    def compare(
        self, job_a: Job, job_b: Job, *, seed: int = 0, progress: Progress = silent
    ) -> tuple[Measurement, Measurement, Comparison]:
        """Time two models in turns, where the device can.

        Raises:
            ConfigError: it cannot.
            MissingDependency, DeviceError: as `measure` does.
        """
        raise ConfigError(
            f"{self.name} cannot time two models in turns",
            hint="measure each, or compare them on another device",
        )

    @abstractmethod
    def probe(self) -> Probe:
        """Ask the device what it is and what it can run.

        Raises:
            DeviceError, MissingDependency: it cannot be reached; the hint says what to do.
        """

    def setup(self, runtime: str, progress: Progress = silent) -> None:
        """Bring a runtime to the device, where that can be done.

        Raises:
            ConfigError: it cannot.
            DeviceError: the device cannot be reached, or takes none.
        """
        raise ConfigError(f"nothing can be brought to {self.name}", hint="install the runtime there by hand")
