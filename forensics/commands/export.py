"""The command ``forensics export``."""

import argparse
from pathlib import Path

from forensics.commands.parsing import Commands, add_detector, command, load_detector, path


def add(commands: Commands) -> None:
    """``forensics export``."""
    parser = command(
        commands,
        "export",
        "export a detector, with a model card",
        "Writes the detector as one file, compares its probabilities with the original's, and "
        "writes a model card.",
        "forensics export outputs/NAME --format onnx",
    )
    add_detector(parser)
    parser.add_argument("--format", required=True, choices=("safetensors", "onnx", "torch-export"))
    parser.add_argument(
        "-o", "--output", type=path, metavar="FOLDER", help="default: export/ beside the detector"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    """Write the file and its model card, and print its largest difference in probability."""
    from forensics.reports.model_card import write_card
    from forensics.scoring.export import export

    source = Path(given.detector)
    detector = load_detector(given)
    folder = given.output or (source if source.is_dir() else source.parent) / "export"
    path, difference = export(detector, given.format, folder)
    print(f"{path}: probabilities differ from the original's by {difference:.1e} at most")
    print(write_card(folder, detector, source))
