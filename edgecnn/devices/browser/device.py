"""The device ``browser``: whichever page is opened at the printed address runs the job."""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecnn.agent import loop
from edgecnn.devices.browser.about import browser_name, system_name, text_of
from edgecnn.devices.browser.conversation import Told, listen, write_outputs, write_result
from edgecnn.devices.browser.runtimes import BrowserRuntime, browser_runtime, browser_runtimes
from edgecnn.devices.device import Device, Probe
from edgecnn.devices.job import Job, read_result, write_job
from edgecnn.errors import ConfigError, MissingDependency
from edgecnn.measurement import Measurement
from edgecnn.progress import Progress, silent
from edgecnn.scratch import scratch
from edgecnn.target import did_you_mean

ACCELERATORS = ("wasm", "webgpu", "webnn")
"""What a page can run a model on: the processor, or what the browser offers of the others."""

LOOPBACK = "127.0.0.1"

_LIBRARIES = ("starlette", "uvicorn", "segno")
# Beyond the timed runs: loading over a slow network, warming up, the outputs of many inputs.
_MORE_S = 1800.0
# What the page tells of the run that is no field of a measurement.
_TOLD = ("timer_resolution_ms", "runs_per_sample", "fully_accelerated", "relaxed_simd")


class BrowserDevice(Device):
    """A browser on this machine, on a phone on its network, or on a phone on USB."""

    def __init__(
        self,
        accelerator: str = "wasm",
        *,
        host: str = LOOPBACK,
        port: int = 0,
        usb: bool = False,
        https: bool = False,
        open_within_s: float = 300.0,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        """Take the settings; nothing listens yet.

        Args:
            accelerator: one of `ACCELERATORS`.
            host: the address to listen on; ``0.0.0.0`` lets in whoever is on the same network and has the
                token.
            port: of the server; 0 for any that is free.
            usb: let a phone on USB reach it through ``adb reverse``.
            https: with a certificate made for the occasion, which the browser will warn of. Without it, or
                USB, a phone gets one thread and a coarse clock.
            open_within_s: how long it waits for a page to be opened.
            announce: given the lines that the user needs: the address, its QR code, and what to heed.
                Without it, only ``progress`` tells the address.

        Raises:
            ConfigError: an unknown accelerator, or ways to the server that exclude each other.
            MissingDependency: the server's libraries are not installed.
        """
        if accelerator not in ACCELERATORS:
            raise ConfigError(
                f"a browser has no accelerator '{accelerator}'",
                hint=did_you_mean(accelerator, list(ACCELERATORS)),
            )
        if usb and (https or host != LOOPBACK):
            raise ConfigError(
                "a phone on USB reaches this machine's loopback, without https",
                hint="--usb, or --https and an address of this machine, but not both",
            )
        for library in _LIBRARIES:
            if importlib.util.find_spec(library) is None:
                raise MissingDependency(
                    f"{library} is not installed, which serves the page",
                    hint="pip install 'edgecnn[browser]'",
                )
        self.name = "browser" if accelerator == "wasm" else f"browser:{accelerator}"
        self._accelerator = accelerator
        self._host, self._port, self._usb, self._https = host, port, usb, https
        self._open_within_s = open_within_s
        self._announce = announce

    def measure(self, job: Job, *, progress: Progress = silent) -> Measurement:
        """Serve one job to one page, and wait for its result.

        The measurement's ``device`` names the browser and its system, its ``runtime`` what ran in the page.
        Its ``options`` tell ``accelerator``, ``isolated``, ``user_agent``, ``timer_resolution_ms`` and
        ``runs_per_sample`` (more than 1 where a run is too short for the page's clock: a sample is then the
        mean of so many), and, where browser and runtime say, ``device_model``, ``fully_accelerated`` (whether
        all operators run on the accelerator) and ``relaxed_simd`` (without which LiteRT.js is slower).

        Raises:
            ConfigError: no such model file, a runtime that no browser has, options for another runtime,
                cores, or threads beside an accelerator, an address that this machine does not have, several
                phones on USB.
            MissingDependency: the runtime cannot be fetched; adb or openssl is needed and not here.
            DeviceError: no page was opened in time, or it was closed, went to sleep or failed.
        """
        runtime = browser_runtime(job.runtime)
        if job.options:
            raise ConfigError(
                f"{runtime.name} does not know {job.runtime}'s option '{next(iter(job.options))}'",
                hint="measure a bundle whose target has no options",
            )
        if job.cores is not None:
            raise ConfigError("no browser lets a page choose its cores", hint="leave --cores out")
        if job.threads > 1 and self._accelerator != "wasm":
            raise ConfigError(f"threads are for wasm, not for {self._accelerator}", hint="--threads 1")
        with scratch("page") as name:
            folder = Path(name)
            write_job(job, folder, paced=False)
            told = self._converse(job, runtime, folder, progress)
            browser = browser_name(text_of(told.about, "user_agent"))
            system = system_name(told.about)
            write_result(told, {"runtime_version": runtime.version, "os": system}, folder)
            if job.outputs is not None:
                write_outputs(told, folder / "outputs.raw", folder)
            device = f"{self.name}: {browser}{f' on {system}' if system else ''}"
            measurement = read_result(
                job, folder, device=device, started_at=told.started_at, timed_at=told.timed_at
            )
        return replace(measurement, runtime=runtime.name, options=self._options(told))

    def probe(self) -> Probe:
        """Which runtimes are in the cache. What the browser is, only its page can tell."""
        known = browser_runtimes().values()
        cached = {runtime.name: runtime.cached() is not None for runtime in known}
        return Probe(
            runtimes={runtime.name: runtime.version if cached[runtime.name] else None for runtime in known},
            notes=tuple(f"{name} is fetched when it is first needed" for name in cached if not cached[name]),
        )

    def _converse(self, job: Job, runtime: BrowserRuntime, folder: Path, progress: Progress) -> Told:
        # Here, since these need the extra that the constructor looks for.
        from edgecnn.devices.browser.reach import listening_socket, phone_port, url_host
        from edgecnn.devices.browser.server import Exchange, Offer, Server

        request = self._request(job, runtime, folder)
        files = runtime.files(progress)
        offer = Offer(request, folder / job.model.name, job.inputs, files, folder / "outputs.raw")
        token = secrets.token_urlsafe()
        exchange = Exchange(offer, token)
        with ExitStack() as stack:
            listening = stack.enter_context(listening_socket(self._host, self._port))
            port = listening.getsockname()[1]
            host = "localhost" if self._usb else url_host(listening)
            if self._usb:
                stack.enter_context(phone_port(port))
            address = f"{'https' if self._https else 'http'}://{host}:{port}/{token}/"
            certificate = self._invite(address, host, folder)
            stack.enter_context(Server(exchange, listening, certificate))
            return listen(
                exchange.events,
                f"{runtime.name} with {job.model.name}",
                address=address,
                open_within_s=self._open_within_s,
                silent_s=job.timeout_s,
                run_s=job.max_time_s + _MORE_S,
                progress=progress,
            )

    def _invite(self, address: str, host: str, folder: Path) -> Path | None:
        """Tell the user where to go; the certificate's file where one is wanted."""
        from edgecnn.devices.browser.reach import fingerprint, make_certificate, qr_code

        lines = [f"Open this address in a browser, or scan the code: {address}", qr_code(address)]
        certificate = None
        if self._https:
            certificate = make_certificate(folder, host)
            lines.append(
                "The browser will warn of the certificate, which was made for this run. Its SHA-256 is "
                f"{fingerprint(certificate)}"
            )
        elif self._host == LOOPBACK and not self._usb:
            lines.append(
                "Only browsers on this machine reach it: a phone does with --usb or --host 0.0.0.0 --https"
            )
        if self._announce is not None:
            self._announce("\n".join(lines))
        return certificate

    def _request(self, job: Job, runtime: BrowserRuntime, folder: Path) -> dict[str, Any]:
        """The job as the page reads it: what the agent would, its loop's constants, and labels to show."""
        inputs = None
        if job.inputs is not None:
            inputs = {"dtype": job.inputs.dtype.name, "shape": list(job.inputs.shape)}
        return {
            **json.loads((folder / "job.json").read_text(encoding="utf-8")),
            "loop": {
                "window_s": loop.WINDOW_S,
                "window_runs": loop.WINDOW_RUNS,
                "window_share": loop.WINDOW_SHARE,
                "steady_within": loop.STEADY_WITHIN,
                "shortest_s": loop.SHORTEST_S,
            },
            "accelerator": self._accelerator,
            "inputs": inputs,
            "title": f"{job.variant} {job.precision}",
            "runtime_name": f"{runtime.name} {runtime.version}",
            "licence": runtime.licence,
            "licence_url": runtime.licence_url,
        }

    def _options(self, told: Told) -> dict[str, Any]:
        device_model = text_of(told.about, "model")
        return {
            "accelerator": self._accelerator,
            "isolated": told.about.get("isolated") is True,
            "user_agent": text_of(told.about, "user_agent"),
            **({"device_model": device_model} if device_model else {}),
            **{name: told.result[name] for name in _TOLD if told.result.get(name) is not None},
        }
