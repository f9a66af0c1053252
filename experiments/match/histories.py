"""Traces of planted processing after matching of both classes.

Two halves of the same photographs differ only in processing planted here: one half was resized or
JPEG compressed. ``python experiments/match/histories.py FOLDER`` writes histories.csv: how well the
audit's models of the pixels separate the halves after matching.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from forensics.evaluation.audit import resampling_traces
from forensics.evaluation.shortcuts import PROBES, separability
from forensics.generators.collapse import Images
from forensics.images.decode import decode
from forensics.images.geometry import Match, ResizeFilter, matched, recompressed, to_square
from forensics.images.listing import list_images

IMAGES = 600
SIDE = 128
FILTER = ResizeFilter.lanczos
TRAITS = {**PROBES, "resampling": resampling_traces}


def square(image: Image.Image, side: int = SIDE) -> Images:
    """The centre square, resized to ``side`` pixels."""
    return to_square(image, side, FILTER)


def jpeg(image: Image.Image, side: int, quality: int) -> Images:
    """Save as JPEG at a given size, then resize to a row."""
    return square(Image.fromarray(recompressed(square(image, side), quality)))


HISTORIES: dict[str, Callable[[Image.Image], Images]] = {
    "none": square,
    "was 200 px": lambda image: square(Image.fromarray(square(image, 200))),
    "JPEG 90 at 200 px": lambda image: jpeg(image, 200, 90),
    "JPEG 75 at 200 px": lambda image: jpeg(image, 200, 75),
    "JPEG 95 at 128 px": lambda image: jpeg(image, SIDE, 95),
    "JPEG 85 at 128 px": lambda image: jpeg(image, SIDE, 85),
    "JPEG 75 at 128 px": lambda image: jpeg(image, SIDE, 75),
}


def main() -> None:
    """Plant each kind of processing in one half, match both, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of photographs")
    folder = parser.parse_args().folder
    files = np.array([file.path for file in list_images(folder).images])
    chosen = np.random.default_rng(0).permutation(files)[:IMAGES]
    images = [decode(folder / path, SIDE).pixels for path in chosen]
    plain, changed = images[::2], images[1::2]
    rows = []
    for history, apply in HISTORIES.items():
        for match in Match:
            halves = [
                np.stack([matched(prepared(image), match, FILTER) for image in half])
                for half, prepared in ((plain, square), (changed, apply))
            ]
            row = {"history": history, "match": str(match), "n": f"{len(plain)}+{len(changed)}"}
            for trait, features in TRAITS.items():
                row[trait] = f"{separability(features(halves[0]), features(halves[1]), 0):.3f}"
            rows.append(row)
            print(*row.values(), sep="  ", flush=True)
    with Path(__file__).with_name("histories.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
