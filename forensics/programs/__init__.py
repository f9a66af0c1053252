"""The programs: each module shows the course of its experiment, from top to bottom."""

import importlib
from pathlib import Path

from forensics.launch import help

_PACKAGE = Path(__file__).parents[1]
CONF = next(home / "conf" for home in (_PACKAGE, _PACKAGE.parent) if (home / "conf").is_dir())
"""The values of all settings: in the installed package, or beside it in a clone."""


def run(name: str) -> None:
    """Run a program with the command line of this process, and end the process.

    Args:
        name: train, generate or evaluate.
    """
    help.answer(CONF / f"{name}.yaml")  # before slow imports
    importlib.import_module(f"forensics.programs.{name}").run()
