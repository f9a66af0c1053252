"""The command ``forensics``: what takes files and folders rather than settings.

Hydra's command line has a grammar of its own, which trips over spaces and ``=`` in paths; this is
an ordinary one. Each command is a function that adds itself and its arguments to the parser. What
takes seconds to import, such as Lightning, is imported by the command that needs it.
"""

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from forensics.data.ingest.prepare import MANIFEST, prepare
from forensics.data.sources import repetitions
from forensics.detectors.plugins import load_module
from forensics.errors import UserError
from forensics.launch.entry import INTERRUPTED, sentence
from forensics.scoring import Predictor
from forensics.scoring.export import FORMATS, export
from forensics.scoring.predict import gather, predict, summary

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.

    What a user can mend is one sentence on standard error and code 1, with the traceback only
    after ``--verbose``.
    """
    parser = argparse.ArgumentParser(prog="forensics", description="Detectors of generated images.")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    given, more = parser.parse_known_args(arguments)
    # argparse takes files on one side of an option only.
    if any(one.startswith("-") for one in more) or not hasattr(given, "pictures"):
        given = parser.parse_args(arguments)  # says what is wrong with them
    else:
        given.pictures += more
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # As Ctrl-C: what schedulers and `kill` send first.
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


def add_prepare(commands: Commands) -> None:
    """``forensics prepare``: what was downloaded becomes a source."""
    parser = commands.add_parser(
        "prepare",
        help="make a source of a folder, a zip or tar archive, parquet, or a hub's data set",
        description="Writes the images of INPUT, unchanged, numbered in the order of their names, "
        "into a folder below the root, with a manifest that says what each is and why others "
        "were left out. The same command resumes one that was stopped.",
    )
    parser.add_argument("source", metavar="SOURCE", help="the source's name, such as celebahq")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="folder, zip, tar, parquet, or hf://OWNER/NAME[/FOLDER]: a data set of Hugging Face",
    )
    parser.add_argument("--root", type=Path, required=True, help="holds a folder for each source")
    parser.add_argument(
        "--min-side",
        type=int,
        default=128,
        help="images with a shorter side in pixels are left out (%(default)s)",
    )
    parser.set_defaults(run=run_prepare)


def run_prepare(given: argparse.Namespace) -> None:
    """Prepare a source and say what became of its files."""
    folder, accepted, rejected = prepare(given.source, given.input, given.root, given.min_side)
    print(f"{accepted} images in {folder}, listed in {folder / MANIFEST}")
    if rejected:
        name, reason = rejected[0]
        print(f"{len(rejected)} files left out, the first {name!r} ({reason})")


def add_audit(commands: Commands) -> None:
    """``forensics audit``: what would let a detector cheat."""
    parser = commands.add_parser(
        "audit",
        help="find shortcuts, duplicates and near-duplicates in the images",
        description="Measures how well each trait of the files and images alone tells real from "
        "generated, and finds copies and near-duplicates; prints a table and writes audit.json, "
        "duplicates.csv and spectra.png.",
    )
    parser.add_argument("--root", type=Path, required=True, help="holds a folder for each source")
    for name in ("real", "generated"):
        parser.add_argument(
            f"--{name}", required=True, metavar="NAMES", help="sources, separated by commas"
        )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/audit"), help="folder to write into (%(default)s)"
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="compared of each class (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which (%(default)s)")
    parser.add_argument(
        "--cache-dir", type=Path, default=Path("outputs/cache"), help="of prepared images"
    )
    parser.set_defaults(run=run_audit)


def run_audit(given: argparse.Namespace) -> None:
    """Audit some sources, print and write what is found."""
    from forensics.evaluation.audit import audit, audit_folders
    from forensics.reports.audit import write_audit
    from forensics.reports.tables import audit_table

    sources = audit_folders(
        given.root, given.real.split(","), given.generated.split(","), given.cache_dir
    )
    repeated = repetitions([one.source for one in sources])
    result = audit(sources, repeated, given.images, given.seed)
    write_audit(given.out, result, sources, repeated[1])
    print(audit_table(result))
    print(f"\nWritten to {given.out}: audit.json, duplicates.csv, spectra.png")


def add_report(commands: Commands) -> None:
    """``forensics report``: tables, figures and a page of runs."""
    parser = commands.add_parser(
        "report",
        help="compare runs: tables, figures and one page",
        description="Compare runs of train.py: Table 1, differences, the grid, one page.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="run folders, or those of sweeps")
    parser.add_argument(
        "--to", type=Path, help="where to write; a single folder's own place if left out"
    )
    parser.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> None:
    from forensics.reports.report import write_report

    to = given.to
    if to is None:
        if len(given.folder) > 1:
            raise UserError("Several folders: say where the report shall go with --to FOLDER.")
        (to,) = given.folder
    study = write_report(given.folder, to)
    if study.problems:
        raise UserError(
            f"{len(study.problems)} jobs have no result, the report names them: run the same "
            "sweep again to do just those."
        )


def _add_detector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", help="a run's folder, or a detector.safetensors")
    parser.add_argument(
        "--plugin", metavar="MODULE", help="a Python module with the detector's network"
    )


def _load_detector(given: argparse.Namespace) -> Predictor:
    if given.plugin is not None:
        load_module(given.plugin)
    return Predictor.load(given.detector)


def add_predict(commands: Commands) -> None:
    """``forensics predict``."""
    parser = commands.add_parser("predict", help="score images with a trained detector")
    _add_detector(parser)
    parser.add_argument(
        "pictures", nargs="*", metavar="IMAGE", help="files, folders, or - for paths on stdin"
    )
    parser.add_argument(
        "--list", action="append", default=[], metavar="FILE", help="a file of paths, one a line"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="TABLE",
        help="output table: .csv, .jsonl or .parquet",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="resume a stopped run of the same command"
    )
    parser.add_argument(
        "--explain", type=Path, metavar="FOLDER",
        help="write a figure of each image: itself, the evidence by place, its spectrum",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, metavar="FILE",
        help="write a page of thumbnails, at most 500 of each verdict",
    )  # fmt: skip
    parser.set_defaults(run=run_predict)


def run_predict(given: argparse.Namespace) -> None:
    """Score files into a table; an error only if none of them could be read."""
    detector = _load_detector(given)
    paths = gather(given.pictures, given.list)
    counts = predict(
        detector,
        paths,
        given.output,
        resume=given.resume,
        explain=given.explain,
        page=given.page,
    )
    print(summary(counts, given.output))
    if counts["error"] == counts.total():
        raise UserError(
            f"None of the files could be read: the column error of {given.output} says why."
        )


def add_export(commands: Commands) -> None:
    """``forensics export``."""
    parser = commands.add_parser("export", help="write a detector for other programs, with a card")
    _add_detector(parser)
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="beside the detector by default"
    )
    parser.set_defaults(run=run_export)


def run_export(given: argparse.Namespace) -> None:
    """Write the file and its card, and say how far its probabilities are from the original's."""
    from forensics.reports.model_card import write_card

    source = Path(given.detector)
    detector = _load_detector(given)
    folder = given.output or (source if source.is_dir() else source.parent) / "export"
    path, difference = export(detector, given.format, folder)
    print(f"{path}: probabilities differ from the original's by {difference:.1e} at most")
    print(write_card(folder, detector, source))


COMMANDS: list[Callable[[Commands], None]] = [
    add_prepare,
    add_audit,
    add_predict,
    add_export,
    add_report,
]
"""One function for each command: it adds a parser whose ``run`` is set to what runs it."""
