"""The command ``forensics``: the programs, and commands that take files rather than settings.

Hydra's command line has a grammar of its own, which fails on spaces and ``=`` in paths; this is an
ordinary one; the programs with settings (train, generate, evaluate) keep Hydra's.
"""
# PYTHON_ARGCOMPLETE_OK

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import forensics
from forensics import programs
from forensics.commands import audit, export, predict, prepare, report
from forensics.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    An error that the user can fix is printed as one sentence on standard error, with exit code 1;
    ``--verbose`` adds the traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in programs.PROGRAMS:
        # Lightning starts this file for every further device.
        program = Path(programs.__file__).with_name(f"{arguments[0]}.py")
        sys.argv = [str(program), *arguments[1:]]
        programs.run(arguments[0])
        return 0
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the command line may continue
        programs.autocomplete(parser)
    if not arguments:
        parser.print_help()
        return 0
    given, more = parser.parse_known_args(arguments)
    # argparse accepts positional files on one side of an option only.
    if any(argument.startswith("-") for argument in more) or not hasattr(given, "paths"):
        given = parser.parse_args(arguments)  # reports the error
    else:
        given.paths += more
    from forensics.launch.entry import INTERRUPTED, sentence

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Handled like Ctrl-C: schedulers and `kill` send SIGTERM first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        given.run(given)
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if given.verbose:
            traceback.print_exc()
        print(sentence(error), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forensics",
        description="Detectors of generated images: train, test, use.",
        epilog="""examples:
  forensics train preprocess=noise            train on the toy faces, test
  forensics train -m preprocess=none,noise seed=0,1    a sweep, with a report
  forensics predict outputs/NAME photo.jpg    score a photograph
  forensics report outputs/A outputs/B --to comparison

`forensics COMMAND --help` describes a command.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"forensics {forensics.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, does in programs.PROGRAMS.items():
        program = commands.add_parser(name, help=does, add_help=False)
        programs.add_settings(program, name)
        program.set_defaults(run=_refuse_before)
    for command in (prepare, audit, predict, export, report):
        command.add(commands)
    return parser


def _refuse_before(given: argparse.Namespace) -> None:
    """Refuse an option before the name of a program, which has options of its own."""
    raise UserError("Write the program first; hydra.verbose=true shows its tracebacks.")


if __name__ == "__main__":
    sys.exit(main())
