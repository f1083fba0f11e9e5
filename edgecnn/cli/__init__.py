"""The command line: one file a command. Parses, calls the library, prints, exits.

Results go to standard output; progress and errors to standard error. Exit codes: 0 done, 1 it failed, 2 the
request was wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from edgecnn.cli.bench import bench
from edgecnn.cli.doctor import doctor
from edgecnn.cli.export import export
from edgecnn.cli.targets import targets
from edgecnn.cli.zoo import zoo
from edgecnn.errors import EdgeCNNError

_INTERRUPTED = 130
_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgecnn")
def cli() -> None:
    """Compile, check and measure convolutional networks for edge targets.

    \b
    edgecnn export mobilenet --target tflite                    a checked TFLite file with its weights
    edgecnn export mobilenet --target tflite --precision int8   quantised to int8
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8              its latency, with its spread
    edgecnn zoo                                                 the networks
    edgecnn targets                                             where they can run
    edgecnn doctor                                              what is usable here
    """


for command in (export, bench, zoo, targets, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit."""
    # A terminated process cleans up like an interrupted one: temporary folders go, nothing half-made stays.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except EdgeCNNError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; nothing half-made was left", err=True)
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get("EDGECNN_TRACEBACK"):
            raise
        click.secho(f"internal error: {type(error).__name__}: {error}", fg="red", err=True)
        click.echo("hint: set EDGECNN_TRACEBACK=1 for the traceback, and report it", err=True)
        code = _INTERNAL
    sys.exit(code or 0)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
