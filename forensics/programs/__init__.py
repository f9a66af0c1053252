"""The programs: each module shows the course of its experiment, from top to bottom."""

import argparse
import copy
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from forensics.errors import UserError
from forensics.launch import help
from forensics.launch.completion import completer

_PACKAGE = Path(__file__).parents[1]
CONF = next(home / "conf" for home in (_PACKAGE, _PACKAGE.parent) if (home / "conf").is_dir())
"""The values of all settings: in the installed package, or beside it in a clone."""

PROGRAMS = {
    "train": "train a detector, test it on every generator, report; -m for a sweep",
    "generate": "train a generator on real faces, write its images",
    "evaluate": "test trained detectors on other sources",
}
"""What each program does."""


def run(name: str) -> None:
    """Run a program with the command line of this process, and end the process.

    Args:
        name: one of `PROGRAMS`.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how the command line may continue
        parser = argparse.ArgumentParser(add_help=False)
        add_settings(parser, name)
        autocomplete(parser)
    help.answer(CONF / f"{name}.yaml")  # before slow imports
    importlib.import_module(f"forensics.programs.{name}").run()


def add_settings(parser: argparse.ArgumentParser, name: str) -> None:
    """Add what a program accepts to a parser, for help and completion: Hydra parses it."""
    for option in ("-h", "--help", "-m", "--multirun", "-cd", "-cn", "--cfg"):
        parser.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    settings = parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    settings.completer = completer(CONF, name)  # type: ignore[attr-defined]


def autocomplete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how the command line may continue, and exit."""
    from argcomplete import autocomplete

    autocomplete(parser, always_complete_options=False)


def call(name: str, overrides: Sequence[str]) -> Path:
    """Run one job of a program from Python; Hydra's state is afterwards as it was before.

    Args:
        name: one of `PROGRAMS`.
        overrides: settings ``KEY=VALUE``, as on the command line.

    Returns:
        The job's folder.

    Raises:
        UserError: if the user can correct the error.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import open_dict, read_write
    from omegaconf.errors import OmegaConfBaseException

    from forensics import config
    from forensics.launch import entry
    from forensics.launch.arguments import as_typed
    from forensics.launch.resume import resumed_arguments

    for option in overrides:
        if option.startswith("-"):
            raise UserError(f"{option}: give settings KEY=VALUE alone; use `forensics {name}`.")
    module = importlib.import_module(f"forensics.programs.{name}")
    command, former = sys.argv, HydraConfig.instance().cfg
    # Errors name the command; Lightning starts it again for every further device.
    sys.argv = [str(module.__file__), *overrides]
    try:
        given = resumed_arguments(as_typed(list(overrides)))
        config_name = name
        if given[:1] == ["--config-name"]:
            config_name, given = given[1], given[2:]
        config.register(given)
        with initialize_config_dir(str(CONF), job_name=name, version_base="1.3"):
            composed = compose(config_name, given, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)
            folder = Path(composed.hydra.run.dir).absolute()
            with read_write(composed.hydra.runtime), open_dict(composed.hydra.runtime):
                composed.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(composed)
            settings = copy.deepcopy(composed)
            with read_write(settings), open_dict(settings):
                del settings["hydra"]
            module.main(settings)
    except (entry.PastHydra, Exception) as raised:
        error = raised.error if isinstance(raised, entry.PastHydra) else raised
        if isinstance(error, UserError):
            raise error from error.__cause__
        if isinstance(error, HydraException | OmegaConfBaseException | OSError):
            raise UserError(entry.sentence(error)) from error
        raise error from error.__cause__
    finally:
        sys.argv, HydraConfig.instance().cfg = command, former
    return folder
