"""The command ``forensics``: commands that take files and folders rather than settings.

Hydra's command line has a grammar of its own, which fails on spaces and ``=`` in paths; this is an
ordinary one; the programs with settings (train, generate, evaluate) keep Hydra's. Each command is a
function that adds itself and its arguments to the parser. All slow imports are left to the command
that needs them, so that help and a shell's completion answer at once.
"""
# PYTHON_ARGCOMPLETE_OK

import argparse
import logging
import os
import re
import signal
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import forensics
from forensics import programs
from forensics.errors import UserError
from forensics.images.listing import MANIFEST, as_text, counted

if TYPE_CHECKING:
    from forensics.scoring import Predictor

log = logging.getLogger(__name__)

_REASONS = 10

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


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
    for add in COMMANDS:
        add(commands)
    return parser


def _refuse_before(given: argparse.Namespace) -> None:
    """Refuse an option before the name of a program, which has options of its own."""
    raise UserError("Write the program first; hydra.verbose=true shows its tracebacks.")


def _command(
    commands: Commands, name: str, help_: str, description: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples."""
    return commands.add_parser(
        name,
        help=help_,
        description=textwrap.fill(description, 78),
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _home(text: str) -> str:
    """A path with ``~`` as the home folder, also where a shell leaves it: in ``--root=~/faces``."""
    path = os.path.expanduser(text)
    if path.startswith("~") and not os.path.lexists(path):
        raise argparse.ArgumentTypeError(
            f"{text}: there is no such user; write ./{text} for a file or folder of that name"
        )
    return path


def _path(text: str) -> Path:
    return Path(_home(text))


def add_prepare(commands: Commands) -> None:
    """``forensics prepare``: make a source of downloaded images."""
    parser = _command(
        commands,
        "prepare",
        "make a source from a folder, a zip or tar archive, parquet, or a Hugging Face data set",
        "Writes the images of INPUT, unchanged, numbered in the order of their names, "
        "into a folder below the root, with a manifest that describes each image and gives the "
        "reason for each rejected file. Repeating the command resumes an interrupted one. An input "
        "with real and generated images is refused unless one class is chosen with --only or "
        "--label.",
        "forensics prepare celebahq ~/Downloads/celebahq.zip --root /faces",
        "forensics prepare progan test.zip --root /faces --only 1_fake",
    )
    parser.add_argument("source", metavar="SOURCE", help="the source's name, such as celebahq")
    parser.add_argument(
        "input",
        metavar="INPUT",
        type=_home,
        help="folder, zip, tar, parquet, or hf://OWNER/NAME[/FOLDER]: a Hugging Face data set",
    )
    parser.add_argument(
        "--root", type=_path, required=True, help="folder with one folder for each source"
    )
    parser.add_argument(
        "--min-side",
        type=int,
        default=128,
        help="reject images with a side shorter than this many pixels (%(default)s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FOLDER",
        help="take only files in folders of this name, at any depth, such as 1_fake or "
        "test/1_fake; may be repeated",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="[COLUMN=]VALUE",
        help="take only rows of parquet with this label; may be repeated",
    )
    parser.set_defaults(run=run_prepare)


def run_prepare(given: argparse.Namespace) -> None:
    """Prepare a source and print how many files were accepted, rejected and passed over."""
    from forensics.data.ingest.prepare import prepare

    folder, accepted, rejected, passed_over, folders = prepare(
        given.source, given.input, given.root, given.min_side, given.only, given.label
    )
    print(as_text(f"{accepted} images in {folder}, listed in {folder / MANIFEST}"))
    if rejected:
        name, reason = rejected[0]
        print(f"{len(rejected)} files left out, the first {name!r} ({reason}):")
        # Reasons that differ in numbers alone, such as sizes, are one.
        kinds = Counter(re.sub(r"\d+", "N", reason) for _, reason in rejected)
        for kind, count in kinds.most_common(_REASONS):
            print(f"  {count}: {kind}")
        if len(kinds) > _REASONS:
            print(f"  further reasons in {folder / MANIFEST}")
    if passed_over:
        print(counted(passed_over))
    if folders > 1:
        print(
            f"They come from {folders} folders, one after the other: training uses the first "
            "images, the test the last."
        )


def add_audit(commands: Commands) -> None:
    """``forensics audit``: shortcuts, duplicates and near-duplicates."""
    parser = _command(
        commands,
        "audit",
        "find shortcuts, duplicates and near-duplicates in the images",
        "Measures how well each trait of the files and images alone separates real "
        "from generated, and finds duplicates and near-duplicates; prints a table and writes "
        "audit.json, duplicates.csv and spectra.png.",
        "forensics audit --root /faces --real celebahq --generated pggan,dcgan",
    )
    parser.add_argument(
        "--root", type=_path, required=True, help="folder with one folder for each source"
    )
    for name in ("real", "generated"):
        parser.add_argument(
            f"--{name}", required=True, metavar="NAMES", help="sources, separated by commas"
        )
    parser.add_argument(
        "--out",
        type=_path,
        default=Path("outputs/audit"),
        help="folder to write into (%(default)s)",
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="images compared per source (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the choice of images (%(default)s)"
    )
    parser.add_argument(
        "--cache-dir", type=_path, default=Path("outputs/cache"), help="folder of prepared images"
    )
    parser.set_defaults(run=run_audit)


def run_audit(given: argparse.Namespace) -> None:
    """Audit sources; print and write the findings."""
    from forensics.data.sources import repetitions
    from forensics.evaluation.audit import audit, audit_folders
    from forensics.reports.audit import write_audit
    from forensics.reports.tables import audit_table

    sources = audit_folders(
        given.root, given.real.split(","), given.generated.split(","), given.cache_dir
    )
    repeated = repetitions([audited.source for audited in sources])
    result = audit(sources, repeated, given.images, given.seed)
    write_audit(given.out, result, sources, repeated[1])
    print(audit_table(result))
    print(f"\nWritten to {given.out}: audit.json, duplicates.csv, spectra.png")


def add_report(commands: Commands) -> None:
    """``forensics report``: tables, figures and a page of runs."""
    parser = _command(
        commands,
        "report",
        "compare runs: tables, figures and one page",
        "Compares runs and evaluations: Table 1, differences, cross-GAN grid, one page.",
        "forensics report outputs/SWEEP",
        "forensics report outputs/A outputs/B --to comparison",
    )
    parser.add_argument("folder", nargs="+", type=_path, help="run folders or sweep folders")
    parser.add_argument("--to", type=_path, help="output folder; default: FOLDER, if there is one")
    parser.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> None:
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


def _add_detector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", type=_home, help="a run's folder, or a detector.safetensors")
    parser.add_argument(
        "--plugin", metavar="MODULE", help="a Python module with the detector's network"
    )


def _load_detector(given: argparse.Namespace) -> "Predictor":
    from forensics.detectors.plugins import load_module
    from forensics.scoring import Predictor

    if given.plugin is not None:
        load_module(given.plugin)
    return Predictor.load(given.detector)


def add_predict(commands: Commands) -> None:
    """``forensics predict``."""
    parser = _command(
        commands,
        "predict",
        "score images: real, generated or unsure, and why",
        "Prints the verdict on each image, its probability of real, and the reason where the "
        "verdict is unsure. With -o, writes a table instead.",
        "forensics predict outputs/NAME photo.jpg",
        "forensics predict outputs/NAME photos/ -o scores.csv --page scores.html",
        "find . -name '*.jpg' | forensics predict outputs/NAME - -o - > scores.csv",
    )
    _add_detector(parser)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="IMAGE",
        help="files, folders with files, or - for paths on stdin",
    )
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of paths, one per line or separated by NUL",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=_home, metavar="TABLE",
        help="write a table: .csv, .jsonl or .parquet; - prints csv",
    )  # fmt: skip
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="resume an interrupted run of the same command"
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="replace an existing table and page"
    )
    parser.add_argument(
        "--explain", type=_path, metavar="FOLDER",
        help="write a figure for each image: the image, a Grad-CAM map, its spectrum",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=_path, metavar="FILE",
        help="write a page of thumbnails, at most 500 per verdict",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="where to score; ray: on the machines of a Ray cluster, also from and to URIs such as "
        "s3://BUCKET/FOLDER and from parquet with images, into a folder of parquet (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--all-checks", action="store_true",
        help="score the mildly changed copies of every image, needed or not",
    )  # fmt: skip
    parser.set_defaults(run=run_predict)


def run_predict(given: argparse.Namespace) -> None:
    """Score files; fails only if none of them could be read."""
    from forensics.scoring.gather import gather
    from forensics.scoring.predict import predict, summary
    from forensics.scoring.show import show

    printed = given.output in (None, "-")
    if given.resume and printed:
        raise UserError("--resume needs a table: name it with -o.", key="--resume")
    gathered = gather(given.paths, given.list)
    missing = [
        name
        for name in given.paths
        if name != "-" and not os.path.lexists(name) and "://" not in name
    ]
    if missing:
        log.warning("%d of the names given do not exist, the first: %s", len(missing), missing[0])
    detector = _load_detector(given)
    if given.all_checks:
        detector.check_all()
    existing = {"resume": given.resume, "overwrite": given.overwrite}
    extras = {"refused": gathered.refused, "lists": given.list, "explain": given.explain,
              "page": given.page}  # fmt: skip
    if given.engine == "ray":
        from forensics.scoring.cluster import expanded, predict_on_ray

        if given.explain or given.page or printed:
            raise UserError(
                "--engine ray writes a table alone: name it with -o, and leave out --explain and "
                "--page.",
                key="--engine",
            )
        gathered = expanded(gathered, given.paths)
        counts = predict_on_ray(detector, gathered, given.output, **existing)
    elif printed:
        as_csv, overwrite = given.output == "-", given.overwrite
        counts = show(detector, gathered.paths, as_csv=as_csv, overwrite=overwrite, **extras)
    else:
        counts = predict(detector, gathered.paths, Path(given.output), **existing, **extras)
    # Standard output may have csv for a program.
    to = sys.stderr if given.output == "-" else sys.stdout
    if not printed:
        print(f"{summary(counts)}; {given.output}", file=to)
    elif counts.total() > 1:
        print(summary(counts), file=to)
    if gathered.passed_over:
        print(counted(gathered.passed_over), file=to)
    if counts["error"] == counts.total():
        raise UserError("None of the files could be read.")


def add_export(commands: Commands) -> None:
    """``forensics export``."""
    parser = _command(
        commands,
        "export",
        "export a detector, with a model card",
        "Writes the detector as one file, compares its probabilities with the original's, and "
        "writes a model card.",
        "forensics export outputs/NAME --format onnx",
    )
    _add_detector(parser)
    parser.add_argument("--format", required=True, choices=("safetensors", "onnx", "torch-export"))
    parser.add_argument(
        "-o", "--output", type=_path, metavar="FOLDER", help="default: export/ beside the detector"
    )
    parser.set_defaults(run=run_export)


def run_export(given: argparse.Namespace) -> None:
    """Write the file and its model card, and print its largest difference in probability."""
    from forensics.reports.model_card import write_card
    from forensics.scoring.export import export

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
"""One function per command: it adds a parser whose default ``run`` is the command's function."""


if __name__ == "__main__":
    sys.exit(main())
