"""The command ``forensics audit``."""

import argparse
from pathlib import Path

from forensics.commands.parsing import Commands, command, home, path


def add(commands: Commands) -> None:
    """``forensics audit``: shortcuts, duplicates and near-duplicates."""
    parser = command(
        commands,
        "audit",
        "find shortcuts, duplicates and near-duplicates in the images",
        "Measures how well each trait of the files and images alone separates real "
        "from generated, and finds duplicates and near-duplicates; prints a table and writes "
        "audit.json, duplicates.csv and spectra.png.",
        "forensics audit --root /faces --real celebahq --generated pggan,dcgan",
    )
    parser.add_argument(
        "--root", type=path, required=True, help="folder with one folder for each source"
    )
    for name in ("real", "generated"):
        parser.add_argument(
            f"--{name}", required=True, metavar="NAMES", help="sources, separated by commas"
        )
    parser.add_argument(
        "--out",
        type=path,
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
        "--cache-dir", type=home, default="outputs/cache", help="folder of prepared images"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Audit sources; print and write the findings."""
    from forensics.data.repetitions import repetitions
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
