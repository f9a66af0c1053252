"""Find the image regions and frequencies of a detector's evidence.

Images are combined from a real and a PGGAN image: the frame of one around the middle of the other,
or the low frequencies of one with the high frequencies of the other. The part that decides the
score contains the evidence.

``python experiments/starter_table/evidence.py outputs/starter/*/`` scores them with each run's
detector and writes ``evidence.csv`` beside this file.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.images.geometry import ResizeFilter
from forensics.runs import read_result
from forensics.scoring import Predictor

IMAGES = 300
Images = NDArray[np.uint8]


def framed(middle: Images, frame: Images, width: int) -> Images:
    """Image of ``middle`` with the outermost ``width`` pixels of ``frame``."""
    mixed = frame.copy()
    mixed[:, width:-width, width:-width] = middle[:, width:-width, width:-width]
    return mixed


def crossed(low: Images, high: Images, cycles_per_pixel: float) -> Images:
    """Image with the frequencies of ``low`` below a cut-off and those of ``high`` above it."""
    spectra = [np.fft.fft2(images.astype(float), axes=(1, 2)) for images in (low, high)]
    frequency = np.fft.fftfreq(low.shape[1])
    below = np.hypot(frequency[:, None], frequency)[None, :, :, None] < cycles_per_pixel
    mixed = np.fft.ifft2(np.where(below, *spectra), axes=(1, 2)).real
    return np.asarray(np.rint(mixed.clip(0, 255)), np.uint8)


def main() -> None:
    """Score the mixed images with the detectors of the runs named on the command line."""
    rows = []
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="of a run")
    for folder in parser.parse_args().folder:
        predictor = Predictor.load(folder)
        input_ = predictor.card.input
        settings = read_result(folder)["settings"]
        root = Path(settings["dataset"]["root"])
        preparation = Preparation(
            input_.image_size, ResizeFilter(input_.resize_filter), input_.image_size, 0.01
        )
        real, pggan, dcgan = (
            open_source(name, root / name, preparation, Path(settings["cache_dir"])).rows[-IMAGES:]
            for name in ("utkface", "pggan", "dcgan")
        )
        mixed = {"real": real, "pggan": pggan, "dcgan": dcgan}
        for width in (1, 4, 16):
            mixed[f"real, {width} px frame of pggan"] = framed(real, pggan, width)
            mixed[f"pggan, {width} px frame of real"] = framed(pggan, real, width)
        for cut in (1 / 32, 1 / 16, 1 / 8, 1 / 4):
            mixed[f"real below {cut:.3f}, pggan above"] = crossed(real, pggan, cut)
            mixed[f"pggan below {cut:.3f}, real above"] = crossed(pggan, real, cut)
        for name, images in mixed.items():
            logits = predictor.scorer.score_rows(np.array(images))
            rows.append(
                {
                    "run": folder.name,
                    "images": name,
                    "n": len(images),
                    "share_called_real": round(float((logits >= 0).mean()), 4),
                    "median_logit": round(float(np.median(logits)), 3),
                }
            )
            print(*rows[-1].values(), sep="  ")
    with Path(__file__).with_name("evidence.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
