"""How a page reaches the server: an address on this machine or its network, a phone's USB cable, https."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import segno

from edgecnn.devices.android.client import Adb, choose, find_adb
from edgecnn.errors import ConfigError, DeviceError, MissingDependency, last_line, one_line

_LAST_PORT = 65535
_TOOL_S = 30.0
# Of the documentation's own network (RFC 5737): nothing is sent there, but the route to it is the way out.
_ELSEWHERE = ("192.0.2.1", 9)


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on an address of this machine; port 0 for any that is free.

    Raises:
        ConfigError: this machine has no such address, or another program has the port.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"there is no port {port}", hint=f"1 to {_LAST_PORT}, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen()
        except OSError:
            bound.close()
            raise
        return bound
    except OSError as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="another --port, or --host with an address of this machine",
        ) from error


def url_host(bound: socket.socket) -> str:
    """How a URL names the address of a bound socket: of all, the one that leads out of this machine."""
    address = ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
    host = str(address)
    if address.is_unspecified:
        host = socket.gethostname()
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ELSEWHERE)
            host = probe.getsockname()[0]
    return f"[{host}]" if ":" in host else host


def qr_code(text: str) -> str:
    """A QR code in half-block characters, light on dark."""
    drawn = io.StringIO()
    segno.make_qr(text, error="l").terminal(drawn, border=2, compact=True)
    return drawn.getvalue().rstrip("\n")


@contextmanager
def phone_port(port: int) -> Iterator[None]:
    """While it lasts, a port of the phone on USB leads to the same port here, as ``http://localhost``.

    A browser counts localhost as secure, so that a page from there may have threads and a fine clock.

    Raises:
        MissingDependency: there is no adb here.
        ConfigError: there are several phones, and ``ANDROID_SERIAL`` names none.
        DeviceError: adb finds no phone, or may not use it.
    """
    command = [*_phone().command, "reverse"]
    ends = f"tcp:{port}"
    try:
        done = subprocess.run(
            [*command, ends, ends], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_S
        )
    except subprocess.TimeoutExpired:
        raise DeviceError("adb does not answer", hint="end its server: adb kill-server") from None
    if done.returncode != 0:
        said = one_line(done.stderr or done.stdout)
        raise DeviceError(f"the phone's port cannot be led here: {said}", hint="check the cable: adb devices")
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):  # the phone may be gone, and its port with it
            subprocess.run([*command, "--remove", ends], capture_output=True, timeout=_TOOL_S)


def _phone() -> Adb:
    try:
        return choose(find_adb(), os.environ.get("ANDROID_SERIAL"))
    except ConfigError as error:
        raise ConfigError(str(error), hint="name one with the variable ANDROID_SERIAL") from error


def make_certificate(folder: Path, host: str) -> Path:
    """A PEM file in ``folder`` with a new key and a certificate for one host, signed by itself, for two days.

    openssl makes it, which is there wherever ssh is: for one certificate a package with a compiled
    cryptographic library would be too much.

    Raises:
        MissingDependency: there is no openssl here.
        DeviceError: it fails.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingDependency(
            "there is no openssl here, which makes the certificate", hint="install OpenSSL"
        )
    bare = host.strip("[]")
    try:
        subject = f"IP:{ipaddress.ip_address(bare)}"
    except ValueError:
        subject = f"DNS:{bare}"
    # As a file, since LibreSSL, which is macOS's openssl, takes no extensions on the command line.
    configuration = folder / "certificate.cnf"
    configuration.write_text(
        "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n"
        "[name]\nCN = edgecnn\n"
        f"[extensions]\nsubjectAltName = {subject}\nbasicConstraints = critical, CA:FALSE\n",
        encoding="utf-8",
    )
    pem = folder / "certificate.pem"
    pem.touch(mode=0o600)
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-sha256"]
    command += ["-config", str(configuration), "-keyout", str(pem), "-out", str(folder / "public.pem")]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_S, check=True)
    except subprocess.CalledProcessError as error:
        said = one_line(last_line(error.stderr.decode(errors="replace")))
        raise DeviceError(f"openssl made no certificate: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"openssl made no certificate within {_TOOL_S:g} s") from error
    with pem.open("a", encoding="utf-8") as file:
        file.write((folder / "public.pem").read_text(encoding="utf-8"))
    return pem


def fingerprint(pem: Path) -> str:
    """SHA-256 of the certificate in a PEM file, as browsers show it: pairs of digits with colons."""
    text = pem.read_text(encoding="utf-8")
    begin = text.index("-----BEGIN CERTIFICATE-----")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin:].strip())).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
