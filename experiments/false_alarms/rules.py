"""Comparison of rules that recognise images with dissimilar spectra, into ``rules.csv``.

``python experiments/false_alarms/rules.py FACES``: a folder with the sources `TRAINED` and
`TESTED`. Each rule reduces a spectrum's deviations from the nearest training source, in standard
deviations, to one number; 1 % of validation images exceed its limit.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.images.geometry import ResizeFilter
from forensics.images.spectra import STD_FLOOR, profiles

Floats = NDArray[np.float64]

TRAINED, TESTED = ("utkface", "pggan"), ("wgan_gp", "dcgan", "lfw")
FIRST, VALIDATED, HELD_OUT, LAST = 600, 60, 400, 1000
PREPARATION = Preparation(128, ResizeFilter.lanczos, 128, 0.01)
RULES: dict[str, Callable[[Floats], Floats]] = {
    "root mean square, all frequencies": lambda z: np.sqrt((z**2).mean(1)),
    "largest, from 1/4 cycles per pixel on": lambda z: np.abs(z[:, z.shape[1] // 2 :]).max(1),
    "largest, all frequencies": lambda z: np.abs(z[:, 1:]).max(1),
    "root mean square, from 1/4 on": lambda z: np.sqrt((z[:, z.shape[1] // 2 :] ** 2).mean(1)),
}


def main() -> None:
    """Fit, set limits, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="holds a folder for each source")
    root = parser.parse_args().root

    def of(name: str, part: slice) -> Floats:
        source = open_source(name, root / name, PREPARATION, Path("outputs/cache"))
        return profiles(np.asarray(source.rows[part]))

    first = {name: of(name, slice(FIRST)) for name in TRAINED}
    tested = {name: of(name, slice(-HELD_OUT, None)) for name in TRAINED}
    tested |= {name: of(name, slice(-LAST, None)) for name in TESTED}
    order = np.random.default_rng(0).permutation(FIRST)
    fitted, validated = order[:-VALIDATED], order[-VALIDATED:]
    sources = [(spectra[fitted].mean(0), spectra[fitted].std(0)) for spectra in first.values()]
    rows = []
    for name, rule in RULES.items():

        def distance(spectra: Floats, rule: Callable[[Floats], Floats] = rule) -> Floats:
            each = [rule((spectra - mean) / np.maximum(std, STD_FLOOR)) for mean, std in sources]
            return np.asarray(np.min(each, axis=0))

        limit = np.quantile(
            np.concatenate([distance(spectra[validated]) for spectra in first.values()]), 0.99
        )
        shares = {
            source: f"{(distance(spectra) > limit).mean():.4f}"
            for source, spectra in tested.items()
        }
        rows.append({"rule": name, "limit": f"{limit:.3f}", **shares})
        print(*rows[-1].values(), sep="  ")
    with Path(__file__).with_name("rules.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
