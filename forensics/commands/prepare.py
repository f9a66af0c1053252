"""The command ``forensics prepare``."""

import argparse
import re
from collections import Counter

from forensics.commands.parsing import Commands, command, home, path
from forensics.images.listing import MANIFEST, as_text, counted

_REASONS = 10


def add(commands: Commands) -> None:
    """``forensics prepare``: make a source of downloaded images."""
    parser = command(
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
        type=home,
        help="folder, zip, tar, parquet, or hf://OWNER/NAME[/FOLDER]: a Hugging Face data set",
    )
    parser.add_argument(
        "--root", type=path, required=True, help="folder with one folder for each source"
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
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Prepare a source and print how many files were accepted, rejected and passed over."""
    from forensics.data.ingest.prepare import prepare

    folder, accepted, rejected, passed_over, folders = prepare(
        given.source, given.input, given.root, given.min_side, given.only, given.label
    )
    print(as_text(f"{accepted} images in {folder}, listed in {folder / MANIFEST}"))
    if rejected:
        print(f"{len(rejected)} files left out:")
        # Reasons that differ in numbers alone, such as sizes, are one.
        kinds = Counter(re.sub(r"\d+", "N", reason) for _, reason in rejected)
        first = {re.sub(r"\d+", "N", reason): name for name, reason in reversed(rejected)}
        for kind, count in kinds.most_common(_REASONS):
            print(f"  {count}: {kind}, {'such as ' * (count > 1)}{first[kind]!r}")
        if len(kinds) > _REASONS:
            print(f"  further reasons in {folder / MANIFEST}")
    if passed_over:
        print(counted(passed_over))
    if folders > 1:
        print(
            f"They come from {folders} folders, one after the other: training uses the first "
            "images, the test the last."
        )
