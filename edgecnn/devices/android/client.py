"""The adb program: the phones it sees, files to and from one of them, and a shell there."""

from __future__ import annotations

import queue
import secrets
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgecnn.errors import ConfigError, DeviceError, EdgeCNNError, MissingDependency, one_line

PLACE = "/data/local/tmp"
"""Where the shell user of a phone may keep and start programs."""

# A phone that sleeps takes seconds to answer, and dumpsys gives a service ten.
_ANSWER_S = 30.0
# The slowest cable that is still in use, USB 2.0 by way of a bad hub.
_BYTES_PER_S = 1 << 20

# Runs on the phone in whatever POSIX shell that has. Each line of standard input is a command, started in
# the background, so that the end of standard input is noticed: then it is killed, and the folder goes. The
# hangup that adbd sends where adb itself was killed comes before that end and must not forestall it.
# `stop` and `pid` are each written before the other is looked for, so a command cannot slip in between.
# Folders are named after the process that keeps them; one whose process is gone was left by a phone that
# killed all of adb's children at once, and goes too.
_KEEPER = """
trap '' HUP
cd {place} || exit 1
for old in edgecnn-job-*; do
  keeper=${{old#edgecnn-job-}}
  keeper=${{keeper%%-*}}
  case $keeper in
    *[!0-9]*) ;;
    *) [ -d "/proc/$keeper" ] || rm -rf "$old" ;;
  esac
done
folder=$PWD/edgecnn-job-$$-{token}
mkdir "$folder" && cd "$folder" || exit 1
echo "{token} $folder"
while IFS= read -r line; do
  (
    sh -c "echo \\$\\$ >pid && [ ! -e stop ] && exec $line"
    status=$?
    rm -f pid
    echo
    echo "{token} $status"
  ) </dev/null 2>&1 &
done
: >stop
[ -e pid ] && kill -9 "$(cat pid)"
cd /
rm -rf "$folder"
"""


@dataclass(frozen=True)
class Attached:
    """A phone that adb sees."""

    serial: str
    """Its serial number, or host and port where it is reached by network."""
    state: str
    """``device`` where it can be used; else ``unauthorized``, ``offline`` and the like."""


class Adb:
    """The adb program for one phone, named in every call."""

    def __init__(self, program: str, serial: str) -> None:
        self.name = f"adb:{serial}"
        self.command = [program, "-s", serial]

    def push(self, files: list[Path], folder: str) -> None:
        """Copy files into a folder there.

        Raises:
            DeviceError: no space left, or the phone is gone.
        """
        size = sum(path.stat().st_size for path in files)
        failed = self._copy("push", [*map(str, files), f"{folder}/"], size)
        if failed is None:
            return
        names = ", ".join(path.name for path in files)
        if "no space left" in failed.lower():
            raise DeviceError(
                f"{self.name} has no space left for {names}",
                hint=f"free {size / 1e6:.0f} MB under {PLACE}, or move apps and photographs away",
            )
        raise DeviceError(
            f"{self.name} did not take {names}: {one_line(failed)}", hint="check the cable: adb devices"
        )

    def pull(self, path: str, place: Path, size: int) -> None:
        """Copy a file of so many bytes from there.

        Raises:
            DeviceError: it is not there, has another size, or the phone is gone.
        """
        failed = self._copy("pull", [path, str(place)], size)
        if failed is None and place.stat().st_size != size:
            failed = f"{place.stat().st_size} bytes came, not {size}"
        if failed is not None:
            raise DeviceError(f"{self.name} did not give {path.rpartition('/')[2]}: {one_line(failed)}")

    def _copy(self, verb: str, arguments: list[str], size: int) -> str | None:
        """What adb says where it fails, else None."""
        limit_s = _ANSWER_S + size / _BYTES_PER_S
        try:
            done = subprocess.run(
                [*self.command, verb, *arguments], capture_output=True, text=True, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return f"not done within {limit_s:.0f} s"
        if done.returncode == 0:
            return None
        said = done.stdout + done.stderr
        # A line that counts what was copied may follow.
        return next((line.strip() for line in said.split("\n") if "error: " in line), _last_line(said))


class Shell:
    """A shell on a phone, in a folder of its own, one command after the other.

    The command that runs and the folder end with the connection, however that ends: closed, killed here,
    pulled out. Standard output tells no such end from a command's own, nor does adb's exit status (0), so
    every command is followed by a line that only this shell can write. ``folder`` is the working directory.
    """

    def __init__(self, adb: Adb) -> None:
        """Start it.

        Raises:
            DeviceError: the phone starts none.
        """
        self.adb = adb
        self._token = secrets.token_hex(8)
        script = _KEEPER.format(place=shlex.quote(PLACE), token=self._token)
        # -T keeps standard input and output as they are; exec-in and exec-out carry only one of the two.
        self._process = subprocess.Popen(
            [*adb.command, "shell", "-T", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_lines, daemon=True).start()
        try:
            self.folder = self._greeting()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *words: str, timeout_s: float = _ANSWER_S) -> tuple[int, str]:
        """Run a command with its arguments.

        Returns:
            Its exit status, and what it wrote, standard error among standard output.

        Raises:
            DeviceError: the phone is gone, or has written nothing for ``timeout_s``.
        """
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{shlex.join(words)}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise self._gone() from error
        written: list[str] = []
        while True:
            line = self._next(timeout_s)
            if line is None:
                raise self._gone()
            token, _, status = line.partition(" ")
            if token == self._token:
                return int(status), "\n".join(written).strip("\n")
            written.append(line)

    def close(self) -> None:
        """End whatever runs, and wait until the folder is removed."""
        assert self._process.stdin
        try:
            self._process.stdin.close()
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):  # a phone that is gone sees to it alone
            self._process.kill()
            self._process.wait()

    def _read_lines(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _next(self, timeout_s: float) -> str | None:
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise DeviceError(
                f"{self.adb.name} has reported nothing for {timeout_s:g} s",
                hint="wake it up, and keep it awake while it charges (developer options)",
            ) from None

    def _greeting(self) -> str:
        said = []
        while (line := self._next(_ANSWER_S)) is not None:
            token, _, folder = line.partition(" ")
            if token == self._token:
                return folder
            said.append(line)
        raise self._refusal("\n".join(said))

    def _refusal(self, said: str) -> DeviceError:
        lowered = said.lower()
        if "pty args" in lowered:
            return DeviceError(
                f"{self.adb.name} runs Android 6 or older", hint="Android 7 or later is needed"
            )
        if "no space left" in lowered:
            return DeviceError(f"{self.adb.name} has no space left", hint=f"free some under {PLACE}")
        return DeviceError(
            f"{self.adb.name} starts no shell: {one_line(_last_line(said))}",
            hint="look at it with: adb devices",
        )

    def _gone(self) -> DeviceError:
        return DeviceError(
            f"{self.adb.name} was cut off in the middle of a run, which does not count",
            hint="check the cable and whether it is back: adb devices",
        )


NO_PHONE = "plug it in, and switch on USB debugging in its developer options"
"""What to do where adb sees none."""


def find_adb() -> str:
    """Path of the adb program.

    Raises:
        MissingDependency: there is none.
    """
    if program := shutil.which("adb"):
        return program
    raise MissingDependency(
        "there is no adb here",
        hint="apt-get install adb, or https://developer.android.com/tools/releases/platform-tools",
    )


def list_attached(program: str) -> list[Attached]:
    """The phones that adb sees, in any state.

    Raises:
        DeviceError: adb cannot start its server.
    """
    try:
        done = subprocess.run([program, "devices"], capture_output=True, text=True, timeout=_ANSWER_S)
    except subprocess.TimeoutExpired:
        raise DeviceError("adb does not answer", hint="end its server: adb kill-server") from None
    if done.returncode != 0:
        raise DeviceError(f"adb fails: {one_line(_last_line(done.stderr))}", hint="try: adb devices")
    pairs = [line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line]
    return [Attached(serial, state.strip()) for serial, state in pairs]


def choose(program: str, serial: str | None) -> Adb:
    """The phone of that serial number, or the only one there is.

    Raises:
        ConfigError: there are several and none is named.
        DeviceError: it is not there, or cannot be used.
    """
    attached = list_attached(program)
    # adb says "connecting" and "authorizing" for a moment after a phone comes.
    deadline = time.monotonic() + 5
    while any(one.state in ("connecting", "authorizing") for one in attached) and time.monotonic() < deadline:
        time.sleep(0.2)
        attached = list_attached(program)
    serials = ", ".join(one.serial for one in attached)
    if not attached:
        raise DeviceError(
            f"adb sees no phone{'' if serial is None else f' {serial}'}",
            hint=NO_PHONE,
        )
    if serial is None:
        if len(attached) > 1:
            raise ConfigError(
                f"adb sees {len(attached)} phones: {serials}", hint=f"name one: adb:{attached[0].serial}"
            )
        found = attached[0]
    else:
        matching = [one for one in attached if one.serial == serial]
        if not matching:
            by_network = f"; adb connect {serial}" if ":" in serial else ""
            raise DeviceError(f"adb sees no phone {serial}", hint=f"it sees {serials}{by_network}")
        found = matching[0]
    if found.state != "device":
        raise _unusable(found)
    return Adb(program, found.serial)


def _unusable(phone: Attached) -> EdgeCNNError:
    name = f"adb:{phone.serial}"
    if phone.state in ("unauthorized", "authorizing"):
        return DeviceError(
            f"{name} has not allowed this computer to debug it",
            hint="unlock the phone, and confirm the question on it",
        )
    if phone.state in ("offline", "connecting"):
        return DeviceError(
            f"{name} is offline", hint="unplug it and plug it in again, or: adb reconnect offline"
        )
    if phone.state.startswith("no permissions"):
        return DeviceError(
            f"{name} may not be used by this user",
            hint="apt-get install android-sdk-platform-tools-common brings its udev rules; plug it in again",
        )
    return DeviceError(f"{name} is in the state '{phone.state}'", hint="start Android on it")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "no message")
