"""Speed of ``forensics predict`` compared with decoding alone, its start-up time and memory.

``python experiments/predict_benchmark/speed.py --csv FILE``; README.md has the figures.
"""

import argparse
import csv
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from forensics import runs
from forensics.checks import plain
from forensics.compute import in_order
from forensics.detectors.base import Schedule
from forensics.detectors.card import (
    Calibration,
    DetectorCard,
    Input,
    Provenance,
    SpectrumGuard,
)
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.images.decode import POLICY_VERSION, decode
from forensics.images.geometry import ResizeFilter, to_square
from forensics.images.spectra import profiles
from forensics.model_files import save_model
from forensics.scoring import Predictor
from forensics.scoring.predict import predict

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SIZE = 128
PAPERS, SMALL = [64, 128, 256, 512], [8, 8]
KINDS = {"1024 px JPEG": (1024, "a.jpg"), "256 px PNG": (256, "a.png")}
DISTINCT = 24
STILL = {"jpeg": 1.0, "rescale": 1.0}
STARTS = 3


class Cost(NamedTuple):
    """Cost of a command.

    Attributes:
        wall: seconds.
        cpu: seconds of all cores together.
        peak: peak memory in MiB; 0 where it was not measured.
    """

    wall: float
    cpu: float
    peak: float = 0.0


def write_photographs(folder: Path) -> dict[str, list[Path]]:
    """Write images with the spectrum of photographs, different ones for each kind."""
    side = 2048
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    white = rng.standard_normal((4, side, side))  # grey, and the deviation of each colour
    planes = np.fft.irfft2(np.fft.rfft2(white) / frequency**1.3)
    planes *= 50 / planes.std()
    field = (127.5 + planes[0] + 0.15 * planes[1:]).clip(0, 255).astype(np.uint8)
    pixels = field.transpose(1, 2, 0)
    written: dict[str, list[Path]] = {}
    for kind, (size, name) in KINDS.items():
        written[kind] = []
        for number in range(DISTINCT):
            y, x = rng.integers(0, side - size, 2)
            path = folder / f"{number:02d}{name}"
            Image.fromarray(pixels[y : y + size, x : x + size]).save(path, quality=90)
            written[kind].append(path)
    return written


def write_detector(path: Path, channels: list[int], photographs: Sequence[Path]) -> Path:
    """Write a detector with random weights, with these images as its training images."""
    torch.manual_seed(0)
    rows = np.stack([square(photograph) for photograph in photographs])
    of_all = profiles(rows)
    settings = DcganDiscriminatorSettings(
        channels=channels,
        leaky_relu_slope=0.2,
        learning_rate=2e-4,
        betas=[0.5, 0.999],
        weight_decay=0.0,
        schedule=Schedule.constant,
        warmup_epochs=0.0,
    )
    spectra = {"real": {"mean": of_all.mean(0).tolist(), "std": of_all.std(0).tolist()}}
    card = DetectorCard(
        "dcgan_discriminator",
        plain(settings),
        None,
        Input(SIZE, "lanczos", "none", POLICY_VERSION, "auto", "resize", None),
        # No score of random weights is near these, so that no image needs changed copies.
        Calibration({"source_0.05": -99.0, "source_0.01": -100.0}, 0.0, 1.0, None, None, STILL),
        SpectrumGuard(spectra, 2.0),
        Provenance(["real"], ["generated"], "none", True, 0, None, None),
    )
    save_model(path, settings.build(SIZE, pretrained=False), card.to_file())
    return path


def square(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Decode and resize, which every detector needs."""
    return to_square(decode(path, 1).pixels, SIZE, ResizeFilter.lanczos)


def timed(work: Callable[[], object]) -> Cost:
    """Run a function in this process and return its cost."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def command(detector: Path, paths: Sequence[Path], folder: Path) -> Cost:
    """Run ``forensics predict`` in a process of its own and return its cost, start included."""
    names = folder / "paths.txt"
    names.write_text("\n".join(map(str, paths)))
    call = "import sys; from forensics.cli import main; sys.exit(main())"
    given = ["predict", str(detector), "--list", str(names), "-o", str(folder / "scores.csv")]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", call, *given],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"forensics predict ended with {process.returncode}")
    wall = time.perf_counter() - started
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[tuple[str, str], list[float]]:
    """All figures, by name and unit."""
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    photographs = write_photographs(folder)
    papers = write_detector(folder / "papers.safetensors", PAPERS, photographs["256 px PNG"])
    small = write_detector(folder / "small.safetensors", SMALL, photographs["256 px PNG"])

    if torch.cuda.is_available():
        _decoding_on(torch.device("cuda"), figures, photographs["1024 px JPEG"], arguments)
    _rates(figures, papers, photographs, arguments, folder)
    if arguments.rates:
        return figures

    log.info("start")
    command(papers, photographs["1024 px JPEG"][:1], folder)  # fills the system's file cache
    for _ in range(STARTS):
        cost = command(papers, photographs["1024 px JPEG"][:1], folder)
        figures["start to the end with one image", "s"].append(cost.wall)
        figures["start to the end with one image, of all cores", "CPU s"].append(cost.cpu)

    for count in (arguments.files // 10, arguments.files):
        log.info("memory, %d files", count)
        paths = (photographs["256 px PNG"] * (count // DISTINCT + 1))[:count]
        cost = command(small, paths, folder)
        figures[f"peak memory, {count} files", "MiB"].append(cost.peak)
        figures[f"{count} files, small network", "s"].append(cost.wall)
    return figures


def _rates(
    figures: dict[tuple[str, str], list[float]],
    papers: Path,
    photographs: dict[str, list[Path]],
    arguments: argparse.Namespace,
    folder: Path,
) -> None:
    """Add the rates of decoding and of scoring, one after the other in each round."""
    few, every = Predictor.load(papers), Predictor.load(papers)
    every.check_all()
    for round_ in range(arguments.rounds):
        for kind, distinct in photographs.items():
            log.info("round %d, %s", round_ + 1, kind)
            paths = (distinct * (arguments.images // DISTINCT + 1))[: arguments.images]
            names = [str(path) for path in paths]
            table = folder / "rate.csv"

            def alone(paths: Sequence[Path] = paths) -> None:
                for _ in in_order(square, paths, 128):
                    pass

            scored = partial(predict, paths=names, table=table, resume=False, overwrite=True)
            least = timed(alone)
            costs = {
                "decode and resize alone": least,
                "predict": timed(partial(scored, few)),
                "predict --all-checks": timed(partial(scored, every)),
            }
            for name, cost in costs.items():
                rate, of_each = len(paths) / cost.wall, 1000 * cost.cpu / len(paths)
                figures[f"{kind}: {name}", "images/s"].append(rate)
                figures[f"{kind}: {name}, of all cores", "CPU ms/image"].append(of_each)
                if cost is not least:
                    speed = f"{kind}: speed of {name} / of decode and resize"
                    figures[speed, "ratio"].append(least.wall / cost.wall)
                    share = f"{kind}: CPU of decode and resize / of {name}"
                    figures[share, "ratio"].append(least.cpu / cost.cpu)


def _decoding_on(
    device: torch.device,
    figures: dict[tuple[str, str], list[float]],
    photographs: Sequence[Path],
    arguments: argparse.Namespace,
) -> None:
    """Add the rate of torchvision's JPEG decoder on a device, and how far its pixels are off."""
    encoded = [read_file(str(path)) for path in photographs]
    times = -(-arguments.images // DISTINCT)
    for round_ in range(1 + arguments.rounds):
        started = time.perf_counter()
        for _ in range(times):
            decoded = decode_jpeg(encoded, ImageReadMode.RGB, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rate = times * DISTINCT / (time.perf_counter() - started)
        if round_:  # the first one warms up
            figures[f"JPEG decoded on {device.type}, without resizing", "images/s"].append(rate)
    for path, pixels in zip(photographs, decoded, strict=True):
        of_ours = torch.from_numpy(np.array(decode(path, 1).pixels)).permute(2, 0, 1)
        off = (pixels.cpu().int() - of_ours.int()).abs()
        for name, value in (("largest", off.max()), ("mean", off.float().mean())):
            name = f"JPEG decoded on {device.type}: {name} distance from ours"
            figures[name, "grey levels"].append(float(value))


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="in each measured rate")
    parser.add_argument("--rounds", type=int, default=3, help="of the rates")
    parser.add_argument("--files", type=int, default=20_000, help="the larger count for memory")
    parser.add_argument("--rates", action="store_true", help="measure the rates alone")
    parser.add_argument(
        "--csv",
        type=Path,
        help="write the figures there, too, in the place of earlier ones of the same name",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory(prefix="predict-benchmark-") as folder:
        figures = measure(arguments, Path(folder))
    made = runs.provenance(torch.device("cpu"))
    where = {
        "cpu": made["device"],
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[2]:.1f}",
        "torch": made["versions"]["torch"],
        "commit": f"{made['git_commit']}{'+' if made['git_changed'] else ''}",
    }
    rows = []
    for (name, unit), values in figures.items():
        spread = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        numbers = {key: f"{value:.4g}" for key, value in spread.items()}
        rows.append({"name": name, "unit": unit, **numbers, "n": str(len(values)), **where})
        print("{name:70} {min:>8} {median:>8} {max:>8} {unit}".format(**rows[-1]))
    if arguments.csv is not None:
        kept: dict[tuple[str, str], dict[str, str]] = {}
        if arguments.csv.exists():
            with arguments.csv.open(newline="") as file:
                kept = {(row["name"], row["unit"]): row for row in csv.DictReader(file)}
        kept |= {(row["name"], row["unit"]): row for row in rows}
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept.values())


if __name__ == "__main__":
    main()
