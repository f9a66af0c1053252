"""Time and memory of what grows with the number of images, with made-up sources.

Names, digests, hashes and manifests are made up; a row has 2x2 pixels. Each figure is of a process
of its own, which does nothing else.
"""

import argparse
import csv
import hashlib
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forensics.data import opening as module
from forensics.data.opening import open_source
from forensics.data.repetitions import repetitions
from forensics.data.settings import DatasetSettings, Protocol
from forensics.data.sources import Needed, Preparation, Source
from forensics.data.splits import split_sources
from forensics.evaluation.metrics import ranking
from forensics.images.geometry import Match, ResizeFilter, View
from forensics.images.listing import ImageFile, Listing
from forensics.reports.run import Run

SIDE = 2
RESAMPLES = 20
FILTER = ResizeFilter.lanczos


def opened(name: str, count: int, folder: Path) -> Source:
    """Open a made-up source with a given number of images; make it first, if it is missing."""
    width = len(str(count))

    def listed(_: Path) -> Listing:
        names = (f"{number:0{width}d}.png" for number in range(count))
        return Listing([ImageFile(path, 100_000 + n, n) for n, path in enumerate(names)], Counter())

    def build(_folder: Path, files: list[ImageFile], *given: Any) -> None:  # noqa: ANN401
        write_rows(files, given[-2])

    vars(module).update(list_images=listed, write_rows=build)
    (folder / name).mkdir(exist_ok=True)
    preparation = Preparation(SIDE, FILTER, 1, 0.0)
    return open_source(name, folder / name, preparation, folder / "cache", Needed(count, 0))


def write_rows(files: list[ImageFile], cache: Path) -> None:
    """Write the rows and the manifest of a made-up source; 1 % of the hashes are nearly equal."""
    count = len(files)
    draws = np.random.default_rng([*cache.parent.name.encode()])
    rows = draws.integers(0, 256, (count, 3 * SIDE**2), np.uint8)
    hashes = draws.integers(0, 2**64, count, np.uint64)
    hashes[1::100] = hashes[::100][: len(hashes[1::100])] ^ np.uint64(0b1011)
    rows.tofile(cache / "rows.bin")
    digests = (hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    of_files = (draws.bytes(32).hex() for _ in range(count))
    columns = {
        "path": pa.array([file.path for file in files]),
        "bytes": pa.array([file.bytes for file in files], pa.int64()),
        "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
        "digest": pa.array(list(digests), pa.binary(16)),
        "sha256": pa.array(list(of_files), pa.string()),
        "hash": pa.array(hashes),
        "rejected": pa.nulls(count, pa.string()),
        "flag": pa.nulls(count, pa.string()),
    }
    pq.write_table(pa.table(columns), cache / "manifest.parquet")


def opening(count: int, folder: Path) -> Callable[[], object]:
    """Open a source."""
    return lambda: opened("one", count, folder)


def splitting(count: int, folder: Path) -> Callable[[], object]:
    """Split two sources, as in the paper."""
    both = [opened(name, count // 2, folder) for name in ("real", "generated")]
    settings = DatasetSettings(
        root=str(folder), find_layout=False, folders={}, below={}, real=["real"], unseen_real=[],
        generators=["generated"], pairs={}, train_on=["generated"], validate_on=[], paired=False,
        split=Protocol.first_last, listed={}, group=None, train_count=count // 4,
        test_count=count // 4, drop_near_duplicates=False, validation_share=0.1, image_size=SIDE,
        view=View.resize, crop_size=None, resize_filter=FILTER, match=Match.none, min_side=1,
        max_rejected_share=0.0, toy=False,
    )  # fmt: skip
    return lambda: split_sources(both, settings, 0)


def duplicates(count: int, folder: Path) -> Callable[[], object]:
    """Find copies and near-duplicates in a source."""
    source = opened("one", count, folder)
    return lambda: repetitions([source])


def reading(count: int, folder: Path) -> Callable[[], object]:
    """Read the scores of a run and compute its metrics again, as a report does."""
    draws = np.random.default_rng(0)
    names = pa.array(["real", "generated"]).dictionary_encode()
    source = np.repeat([0, 1], count // 2).astype(np.int32)
    test = pa.DictionaryArray.from_arrays(np.zeros(len(source), np.int32), pa.array(["test"]))
    table = {
        "source": pa.DictionaryArray.from_arrays(source, names.dictionary),
        "path": pa.array([f"{number}.png" for number in range(len(source))]),
        "split": test,
        "label": pa.array((1 - source).astype(np.int8)),
        "logit": pa.array(draws.normal(1 - source, 1).astype(np.float32)),
    }
    pq.write_table(pa.table(table), folder / "scores.parquet")
    pair = {"real": "real", "generator": "generated"}
    hashes = dict.fromkeys(("real", "generated"), "")
    result = {"pairs": [pair], "temperature": None, "thresholds": {"0.5": 0.0},
              "test_hashes": hashes}  # fmt: skip
    settings = {"model": "dcgan_discriminator", "seed": 0, "dataset.train_on": []}
    del table

    def read() -> None:
        run = Run("run", folder, result, settings, folder / "scores.parquet", folder / "none")
        run.tested()
        run.check()

    return read


def bootstrap(count: int, folder: Path) -> Callable[[], object]:
    """Metrics of a pair with their intervals, from few resamples."""
    draws = np.random.default_rng(0)
    real, generated = (draws.normal(mean, 1, count // 2) for mean in (1, 0))
    return lambda: ranking(real, generated, 0, RESAMPLES)


STEPS = {
    "open": opening,
    "split": splitting,
    "duplicates": duplicates,
    "report": reading,
    "bootstrap": bootstrap,
}
"""By name, what prepares a step and returns it."""


def run(step: str, count: int, folder: Path) -> dict[str, float]:
    """Measure a step in this process."""
    work = STEPS[step](count, folder)
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return {
        "cpu_s": after.ru_utime - before.ru_utime + system,
        "system_s": system,
        "before_mib": before.ru_maxrss / 1024,
        "peak_mib": after.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure steps with growing numbers of images; write a row of each and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--csv", type=Path, help="rows are added to it")
    parser.add_argument("--label", default="", help="value of the column label, such as a commit")
    parser.add_argument("--one", nargs=3, metavar=("STEP", "COUNT", "FOLDER"), help="internal")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(given.one[0], int(given.one[1]), Path(given.one[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for step in given.steps:
            last: dict[str, float] = {}
            for count in sorted(given.images):
                place = Path(folder) / str(count)
                place.mkdir(exist_ok=True)
                command = [sys.executable, __file__, "--one", step, str(count), str(place)]
                # The first run makes the sources, where they are missing.
                for _ in range(1 + (step == "open")):
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(done.stdout)
                slope = last and math.log(found["cpu_s"] / last["cpu_s"]) / math.log(
                    count / last["images"]
                )
                last = found | {"images": count}
                row = {"label": given.label, "step": step, "images": count} | {
                    name: f"{value:.3g}" for name, value in found.items()
                } | {"slope": f"{slope:.2f}" if slope else ""}  # fmt: skip
                print(*row.values(), flush=True)
                if given.csv:
                    is_new = not given.csv.exists()
                    with given.csv.open("a", newline="") as file:
                        writer = csv.DictWriter(file, row)
                        if is_new:
                            writer.writeheader()
                        writer.writerow(row)


if __name__ == "__main__":
    main()
