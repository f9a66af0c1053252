"""Table: how well one number, the power in a band of frequencies, tells sources from a real one."""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sources import SIDE, last_images

from forensics.images.spectra import profiles

BANDS = (16, 24, 32, 40, 48, 56, 65)
"""Limits of the bands in cycles per 128 pixels, the last one excluded."""


def powers(folder: Path, images: int) -> NDArray[np.float64]:
    """Mean log10 power of a source's last images in each band, ``(images, bands)``."""
    rings = profiles(last_images(folder, images))
    return np.stack([rings[:, low:high].mean(1) for low, high in itertools.pairwise(BANDS)], 1)


def main() -> None:
    """Print a line a source: AUROC of a power below the real source's, by band."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("root", type=Path, help="folder of the sources")
    parser.add_argument("real", help="the real source to compare with")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--images", type=int, default=200, help="of each source, the last ones")
    given = parser.parse_args()
    real = powers(given.root / given.real, given.images)
    limits = [limit / SIDE for limit in (*BANDS[:-1], BANDS[-1] - 1)]
    heads = [f"{low:.3f}-{high:.3f}" for low, high in itertools.pairwise(limits)]
    sys.stdout.write(f"| source | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|\n")
    for source in given.sources:
        made = powers(given.root / source, given.images)
        is_real = np.repeat([1, 0], [len(real), len(made)])
        aurocs = [
            roc_auc_score(is_real, np.concatenate(both))
            for both in zip(real.T, made.T, strict=True)
        ]
        sys.stdout.write(f"| {source} | {' | '.join(f'{one:.2f}' for one in aurocs)} |\n")


if __name__ == "__main__":
    main()
