"""The command ``forensics predict``."""

import argparse
import logging
import os
import sys
from pathlib import Path

from forensics.commands.parsing import Commands, add_detector, command, home, load_detector, path
from forensics.errors import UserError
from forensics.images.listing import counted

log = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """``forensics predict``."""
    parser = command(
        commands,
        "predict",
        "score images: real, generated or unsure, and why",
        "Prints the verdict on each image, its probability of real, and the reason where the "
        "verdict is unsure. With -o, writes a table instead.",
        "forensics predict outputs/NAME photo.jpg",
        "forensics predict outputs/NAME photos/ -o scores.csv --page scores.html",
        "find . -name '*.jpg' | forensics predict outputs/NAME - -o - > scores.csv",
    )
    add_detector(parser)
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="IMAGE",
        help="files, folders with files, or - for paths on stdin",
    )
    parser.add_argument(
        "--list",
        action="append",
        type=home,
        default=[],
        metavar="FILE",
        help="a file of paths, one per line or separated by NUL",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=home, metavar="TABLE",
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
        "--explain", type=path, metavar="FOLDER",
        help="write a figure for each image: the image, a Grad-CAM map, its spectrum",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=path, metavar="FILE",
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
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Score files; fails only if none of them could be read."""
    from forensics.scoring.gather import gather
    from forensics.scoring.predict import predict, summary
    from forensics.scoring.show import show

    printed = given.output in (None, "-")
    if given.resume and printed:
        raise UserError("--resume needs a table: name it with -o.", key="--resume")
    # A shell leaves ~ within quotes; a program that starts this one leaves every ~.
    paths = [n if os.path.lexists(n) else os.path.expanduser(n) for n in given.paths]
    gathered = gather(paths, given.list)
    missing = [
        name for name in paths if name != "-" and not os.path.lexists(name) and "://" not in name
    ]
    if missing:
        log.warning("%d of the names given do not exist, the first: %s", len(missing), missing[0])
    detector = load_detector(given)
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
        gathered = expanded(gathered, paths)
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
