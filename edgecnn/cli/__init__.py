"""The command line: one file a command. Parses, calls the library, prints, exits.

Results go to standard output; progress and errors to standard error. Exit codes: 0 done, 1 it failed, 2 the
request was wrong, 3 an accuracy budget could not be met, 70 a bug in edgecnn, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import click

from edgecnn.cli import interrupt
from edgecnn.cli.bench import bench
from edgecnn.cli.count import count
from edgecnn.cli.devices import devices
from edgecnn.cli.doctor import doctor
from edgecnn.cli.eval import evaluate
from edgecnn.cli.export import export
from edgecnn.cli.inspect import inspect
from edgecnn.cli.targets import targets
from edgecnn.cli.train import train
from edgecnn.cli.zoo import zoo
from edgecnn.errors import ConfigError, EdgeCNNError
from edgecnn.target import did_you_mean

_INTERRUPTED = 130
_INTERNAL = 70  # EX_SOFTWARE of sysexits.h


class _Commands(click.Group):
    """A group that knows the nearest name of a mistyped command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0] not in self.commands and not args[0].startswith("-"):
            raise ConfigError(f"unknown command '{args[0]}'", hint=did_you_mean(args[0], list(self.commands)))
        return super().resolve_command(ctx, args)


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(package_name="edgecnn")
def cli() -> None:
    """Compile, check and measure convolutional networks for edge targets.

    \b
    edgecnn export mobilenet --target tflite                    a checked TFLite file with its weights
    edgecnn export mobilenet --target tflite --precision int8   quantised to int8
    edgecnn bench mobilenet_v2-1.0-224-tflite-int8              its latency, with its spread
    edgecnn count mobilenet_v2-1.0-224-tflite-int8 --cpu cortex-a72  its instructions, no board needed
    edgecnn eval mobilenet_v2-1.0-224-tflite-int8 --data photos/  its accuracy, with its interval
    edgecnn train mobilenet --data photos/ --from imagenet      weights for classes of your own
    edgecnn inspect mobilenet                                   its arithmetic, parameters and memory
    edgecnn zoo 'mobile*' --max-macs 300M                       the networks
    edgecnn targets                                             where they can run
    edgecnn devices                                             what they can be measured on
    edgecnn doctor                                              what is usable here

    \b
    Names complete with the tab key after one of
    eval "$(_EDGECNN_COMPLETE=bash_source edgecnn)"             in ~/.bashrc
    eval "$(_EDGECNN_COMPLETE=zsh_source edgecnn)"              in ~/.zshrc
    _EDGECNN_COMPLETE=fish_source edgecnn | source              in ~/.config/fish/config.fish
    """


for command in (export, train, evaluate, bench, count, inspect, zoo, targets, devices, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit."""
    interrupt.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name, or a terminal that is not UTF-8, may not be able to show all that is printed.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = run()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    # Taking torch and the runtimes apart would last a third of a second; everything is closed and removed.
    os._exit(code)


def run() -> int:
    """Run the command line; the exit code."""
    try:
        return int(cli.main(prog_name="edgecnn", standalone_mode=False, color=_color()) or 0)
    except SystemExit as ended:  # click ends so when it has completed a word for the shell
        return int(ended.code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        message = error.format_message().rstrip(".")
        path = error.ctx.command_path if error.ctx else "edgecnn"
        hint = f"`{path} --help` lists what it takes"
        return _fail(message[:1].lower() + message[1:], hint, error.exit_code)
    except EdgeCNNError as error:
        return _fail(str(error), error.hint, error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory", "use a smaller --resolution or --width")
    except Exception as error:
        if interrupt.asked():  # a library may have turned the interrupt into an error of its own
            return _interrupted()
        if os.environ.get("EDGECNN_TRACEBACK"):
            raise
        if isinstance(error, OSError):
            place = f"{error.filename}: " if error.filename else ""
            return _fail(f"{place}{error.strerror or error}", None)
        what = " ".join(str(error).split()) or "no message"
        hint = "set EDGECNN_TRACEBACK=1 for the traceback, and report it"
        return _fail(f"{type(error).__name__}: {what}", hint, _INTERNAL, kind="internal error")


def _color() -> bool | None:
    """False where colours are not wanted (no-color.org) or understood; None: wherever a terminal is."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _fail(message: str, hint: str | None, code: int = 1, *, kind: str = "error") -> int:
    click.secho(f"{kind}: {message}", fg="red", err=True, color=_color())
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return code


def _interrupted() -> int:
    click.echo("interrupted; nothing half-made was left", err=True)
    return _INTERRUPTED
