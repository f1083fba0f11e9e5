"""What a measurement over ssh costs beyond its inferences, and what sessions leave behind that are killed.

    python benchmarks/ssh_sessions.py

A real sshd on loopback stands for the board (tests/devices/sshd.py), with this Python and its packages.
The overhead is the wall time of ``edgecnn bench`` as a library call less all inferences, with
MobileNetV2's int8 TFLite file of 4 MB. Then ``edgecnn bench`` of ten copies of that bundle is killed
with SIGKILL, the command or its ssh in turns, at a random moment, and started again with ``--resume``.
After each kill the board is searched for processes and folders, and the file of results is read; at the
end one more start completes it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ours
import psutil
import table
from results import argument_parser, machine, say, write

sys.path.append(str(Path(__file__).resolve().parents[1]))
from edgecnn import pipeline
from edgecnn.devices.job import Job
from edgecnn.devices.local import LOCAL
from edgecnn.devices.ssh import SshDevice
from edgecnn.series import Series
from tests.devices import sshd

# A killed session's processes are gone after this.
SOON_S = 20.0
# A start of Python and a session with a second of runs last about this long.
SESSION_S = 4.0
COPIES = 10


def main() -> None:
    """Measure, write ``results/ssh_sessions.json``, print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of the overhead [default: %(default)s]")
    parser.add_argument("--kills", type=int, default=50, help="[default: %(default)s]")
    arguments = parser.parse_args()
    say("compiling")
    files = ours.make().files(arguments.work.resolve() / "edgecnn" / ours.MODEL)
    [model] = files["tflite", "int8"]
    job = Job(model, "tflite", target="tflite", variant=ours.MODEL, precision="int8", min_time_s=1.0)
    result: dict[str, Any] = {"machine": machine(), "model_bytes": model.stat().st_size}
    with (
        tempfile.TemporaryDirectory(prefix="edgecnn-ssh-") as folder,
        sshd.running(Path(folder) / "b") as board,
    ):
        board.trust(board.port)
        os.environ["PATH"] = board.client_path
        device = SshDevice(board.address)
        result["beyond_s"] = {"ssh": [], "local": []}
        for number in range(arguments.rounds):
            for name, place in (("ssh", device), ("local", LOCAL)):
                began = time.perf_counter()
                measured = place.measure(job)
                took_s = time.perf_counter() - began
                runs_s = (sum(measured.samples_ms) + sum(measured.warmup_ms) + measured.first_ms) / 1e3
                result["beyond_s"][name].append(took_s - runs_s)
            say(f"round {number + 1}: {result['beyond_s']['ssh'][-1]:.2f} s beyond the inferences")
        bundles = _copies(Path(folder))
        kept = Path(folder) / "results.jsonl"
        command = [sys.executable, "-c", "from edgecnn.cli import main; main()", "bench", *map(str, bundles)]
        command += ["--device", f"ssh:{board.address}", "--min-time", "1", "-o", str(kept), "--resume"]
        result["kills"] = [_kill(board, command, kept, seed) for seed in range(arguments.kills)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        result["copies"], result["completed"] = COPIES, len(Series(kept, resume=True))
    path = write("ssh_sessions", result)
    print(table.ssh_sessions(result))
    say(f"wrote {path}")


def _copies(folder: Path) -> list[Path]:
    [artifact] = pipeline.export(
        ours.MODEL, ["tflite"], precision="int8", measure=False, output=folder / "bundles"
    )
    copies = [folder / "bundles" / f"copy-{number}" for number in range(COPIES)]
    for copy in copies:
        shutil.copytree(artifact.path, copy)
    return copies


def _kill(board: sshd.Board, command: list[str], kept: Path, seed: int) -> dict[str, Any]:
    """Start a series, kill it or its ssh, and count what is left, there and of the results."""
    generator = random.Random(seed)
    caller = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    moment_s = generator.uniform(0, SESSION_S)
    time.sleep(moment_s)
    victims = psutil.Process(caller.pid).children() if seed % 2 and caller.poll() is None else []
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    if not victims:
        caller.kill()
    caller.wait()
    left = board.left_after(SOON_S)
    killed = "ssh" if victims else "caller"
    results = len(Series(kept, resume=True))  # every line is a whole measurement, or this refuses it
    say(f"{killed} killed after {moment_s:.2f} s: {len(left)} things left, {results} results")
    return {"moment_s": moment_s, "killed": killed, "left": len(left), "results": results}


if __name__ == "__main__":
    main()
