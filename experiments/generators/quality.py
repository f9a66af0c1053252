"""Table of the quality measures in ``source.json`` files of generators, and sheets of images.

``python experiments/generators/quality.py /faces/dcgan /faces/wgan_gp ...`` prints a table and
writes ``quality.csv`` and ``<generator>.jpg``, beside this file or to another folder.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from PIL import Image

COLUMNS, ROWS, SIDE = 10, 3, 80


def row_of(folder: Path) -> dict[str, Any]:
    """Quality measures of one generator."""
    card = json.loads((folder / "source.json").read_text())
    quality = card["quality"]
    row = {name: card[name] for name in ("generator", "faces", "steps", "images_shown", "images")}
    row |= {"compared": quality["n"]}
    for level, distance in quality["sliced_wasserstein"].items():
        row[f"swd_{level}"] = round(distance, 1)
        row[f"swd_{level}_real"] = round(quality["sliced_wasserstein_real"][level], 1)
    row |= {name: round(quality[name], 3) for name in ("ms_ssim", "ms_ssim_real")}
    row |= {"nearest_ratio": round(quality["nearest"]["ratio"], 2)}
    row |= {f"auroc_{name}": round(auroc, 4) for name, auroc in quality["shortcuts"].items()}
    return row | {"git_commit": card["training"]["git_commit"]}


def sheet(folder: Path) -> Image.Image:
    """A sheet of the first images of a generator, downscaled."""
    combined = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for number in range(COLUMNS * ROWS):
        with Image.open(folder / f"{number:06d}.png") as image:
            place = (number % COLUMNS * SIDE, number // COLUMNS * SIDE)
            combined.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
    return combined


def main() -> None:
    """Read the folders named on the command line."""
    rows = []
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="that generate.py has filled")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder to write to")
    given = parser.parse_args()
    given.to.mkdir(exist_ok=True)
    for folder in given.folder:
        rows.append(row_of(folder))
        sheet(folder).save(given.to / f"{rows[-1]['generator']}.jpg", quality=90)
    with (given.to / "quality.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("| measure | " + " | ".join(row["generator"] for row in rows) + " |")
    print("|---|" + "---|" * len(rows))
    for name in list(rows[0])[1:-1]:
        print(f"| {name} | " + " | ".join(str(row[name]) for row in rows) + " |")


if __name__ == "__main__":
    main()
