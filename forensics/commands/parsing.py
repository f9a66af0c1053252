"""What the commands' parsers share: examples in the help, paths, the detector."""

import argparse
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from forensics.scoring import Predictor

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(
    commands: Commands, name: str, help_: str, description: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples.

    Args:
        commands: the parser's commands.
        name: its name.
        help_: what it does, in a line.
        description: the same in sentences.
        examples: command lines.
    """
    return commands.add_parser(
        name,
        help=help_,
        description=textwrap.fill(description, 78),
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def home(text: str) -> str:
    """A path with ``~`` as the home folder, also where a shell leaves it: in ``--root=~/faces``."""
    given = os.path.expanduser(text)
    if given.startswith("~") and not os.path.lexists(given):
        raise argparse.ArgumentTypeError(
            f"{text}: there is no such user; write ./{text} for a file or folder of that name"
        )
    return given


def path(text: str) -> Path:
    """As `home`, for an argument that is a path and never anything else."""
    return Path(home(text))


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `load_detector`."""
    parser.add_argument("detector", type=home, help="a run's folder, or a detector.safetensors")
    parser.add_argument(
        "--plugin", metavar="MODULE", help="a Python module with the detector's network"
    )


def load_detector(given: argparse.Namespace) -> "Predictor":
    """Load the detector that the arguments name, after its plug-in."""
    from forensics.detectors.plugins import load_module
    from forensics.scoring import Predictor

    if given.plugin is not None:
        load_module(given.plugin)
    return Predictor.load(given.detector)
