"""Changes of an image under which the search for near-duplicates still finds it.

``python experiments/audit/planted.py FOLDER`` changes some images of a folder and searches for each
among all of them; writes planted.csv.
"""

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from forensics.data.opening import open_source
from forensics.evaluation.audit import PREPARATION
from forensics.images.decode import decode
from forensics.images.duplicates import near_duplicates, perceptual_hashes
from forensics.images.geometry import to_square

PLANTED = 300
SIDE = PREPARATION.image_size


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Compress and decode an image."""
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Resize an image and, if it is then smaller than a row, enlarge it to a row's size."""
    size = (round(image.width * factor), round(image.height * factor))
    smaller = image.resize(size, Image.Resampling.BICUBIC)
    return smaller if min(size) >= SIDE else smaller.resize((SIDE, SIDE))


def mirrored(image: Image.Image) -> Image.Image:
    """Mirror an image horizontally."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cut(image: Image.Image, share: float) -> Image.Image:
    """Crop a share of the width and height at the left and the top."""
    left, top = round(share * image.width), round(share * image.height)
    return image.crop((left, top, image.width, image.height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 30": lambda image: jpeg(image, 30),
    "JPEG 10": lambda image: jpeg(image, 10),
    "half as large": lambda image: resized(image, 0.5),
    "a quarter as large": lambda image: resized(image, 0.25),
    "mirrored": mirrored,
    "mirrored, half as large, JPEG 30": lambda image: jpeg(resized(mirrored(image), 0.5), 30),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "a third darker": lambda image: image.point(lambda level: level * 2 / 3),
    "cut by 1 % at two sides": lambda image: cut(image, 0.01),
    "cut by 3 % at two sides": lambda image: cut(image, 0.03),
    "cut by 6 % at two sides": lambda image: cut(image, 0.06),
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
}


def main(folder: Path) -> None:
    """Plant changed images, search for them, write the table."""
    source = open_source(folder.name, folder, PREPARATION, Path("outputs/cache"))
    chosen = np.sort(np.random.default_rng(0).permutation(len(source))[:PLANTED])
    originals = [decode(folder / source.paths[row], SIDE)[0] for row in chosen]
    rows = []
    for change, apply in CHANGES.items():
        changed = np.stack(
            [to_square(apply(image), SIDE, PREPARATION.resize_filter) for image in originals]
        )
        hashes = np.concatenate([source.hashes, perceptual_hashes(changed)])
        of_changed = changed  # bound per iteration, for the function below

        def images(positions: np.ndarray, of_changed: np.ndarray = of_changed) -> np.ndarray:
            return np.stack(
                [
                    source.rows[p] if p < len(source) else of_changed[p - len(source)]
                    for p in positions
                ]
            )

        pairs = near_duplicates(hashes, images)
        planted = pairs.second >= len(source)
        # Images with equal hashes are paired with the first only, which may be the original's copy.
        found = set((pairs.second[planted] - len(source)).tolist())
        rows.append([change, PLANTED, len(source), len(found) / PLANTED])
        print(*rows[-1])
    with (Path(__file__).parent / "planted.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["change", "planted", "among", "found"])
        table.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of photographs")
    main(parser.parse_args().folder)
