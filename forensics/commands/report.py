"""The command ``forensics report``."""

import argparse

from forensics.commands.parsing import Commands, command, path
from forensics.errors import UserError


def add(commands: Commands) -> None:
    """``forensics report``: tables, figures and a page of runs."""
    parser = command(
        commands,
        "report",
        "compare runs: tables, figures and one page",
        "Compares runs and evaluations: Table 1, differences, cross-GAN grid, one page.",
        "forensics report outputs/SWEEP",
        "forensics report outputs/A outputs/B --to comparison",
    )
    parser.add_argument("folder", nargs="+", type=path, help="run folders or sweep folders")
    parser.add_argument("--to", type=path, help="output folder; default: FOLDER, if there is one")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Write the report; fails after it if jobs have no result."""
    from forensics.reports.report import write_report

    to = given.to
    if to is None:
        if len(given.folder) > 1:
            raise UserError("Several folders: name the report's folder with --to FOLDER.")
        (to,) = given.folder
    study = write_report(given.folder, to)
    if study.problems:
        raise UserError(
            f"{len(study.problems)} jobs have no result, the report names them: repeat the sweep "
            "to run only those."
        )
