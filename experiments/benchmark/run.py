"""Speed of training, compared with the bare step and with the loop of public detectors.

``python experiments/benchmark/run.py --help`` lists the measurements; README.md has the figures.
"""

import argparse
import copy
import csv
import io
import itertools
import json
import logging
import math
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from forensics import config, runs
from forensics.compute import in_bfloat16
from forensics.data.datamodule import FaceData
from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.detectors.base import Detector
from forensics.training.settings import TrainSettings
from forensics.training.trainer import assemble_detector, build_trainer

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("generated", "real")  # ImageFolder numbers folders by name, so real is 1, as everywhere
CORES = os.cpu_count() or 1
WARM_UP = 3
OPENED_TIMES, OPENED_SIDE = 5, 8
ACCURACY_SEEDS = (0, 1, 2)
AT_ONCE = 5
SWEPT = {"preprocess": ["none", "blur", "noise"], "seed": ["0", "1"]}
SOURCE_SIDE = 1024
# Spectrum, contrast and colour of a photographed face: its JPEG of quality 90 takes some 300 kB.
SPECTRUM_EXPONENT, CONTRAST_GREY_LEVELS, COLOUR_SHARE = 1.3, 50, 0.15
# CNNDetection's options of Blur+JPEG(0.5), and the sides of its images before and after the crop.
BLUR_SIGMA, JPEG_QUALITIES, PROBABILITY, LOADED_SIDE, CROPPED_SIDE = 3.0, (30, 100), 0.5, 256, 224
SAVE_OPTIONS: dict[str, dict[str, Any]] = {"jpg": {"quality": 90}, "png": {"compress_level": 1}}


class Figure(NamedTuple):
    """Identity of a row of the results."""

    part: str
    name: str
    unit: str


Measured = dict[Figure, list[float]]


class Arithmetic(NamedTuple):
    """Numeric precision and memory layout of a step."""

    bfloat16: bool
    layout: torch.memory_format

    def __str__(self) -> str:
        layout = "channels last" if self.layout is torch.channels_last else "NCHW"
        return f"{'bf16' if self.bfloat16 else 'fp32'} {layout}"


CONVENTIONAL = Arithmetic(bfloat16=False, layout=torch.contiguous_format)


def compose(arguments: argparse.Namespace, *overrides: str) -> TrainSettings:
    """The settings of train.py with the user's overrides, then these."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        chosen = [*arguments.overrides, "name=benchmark", *overrides]
        return config.typed(hydra.compose("train", chosen), TrainSettings)


def on_two_classes(folder: Path, per_class: int) -> list[str]:
    """Overrides: train for an epoch on the folders of `CLASSES`, test on one image of each."""
    return [
        "dataset=paper", f"dataset.root={folder}", f"cache_dir={folder}-cache", "max_epochs=1",
        "dataset.real=[real]", "dataset.generators=[generated]", "dataset.train_on=[generated]",
        f"dataset.train_count={per_class - 1}", "dataset.test_count=1",
    ]  # fmt: skip


def prepared(settings: TrainSettings) -> FaceData:
    """The data module, set up as in train.py."""
    data = FaceData(
        settings.dataset,
        settings.operator,
        settings.batch_size,
        settings.seed,
        Path(settings.cache_dir),
    )
    data.setup()
    return data


# ----------------------------------------------------------------------------------- image files


def write_photographs(folder: Path, per_class: int, suffix: str, seed: int) -> None:
    """Write images with the spectrum of photographs: crops of one large random field."""
    side = 2 * SOURCE_SIDE
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    white = rng.standard_normal((4, side, side))  # grey, and the deviation of each colour
    planes = np.fft.irfft2(np.fft.rfft2(white) / frequency**SPECTRUM_EXPONENT)
    planes *= CONTRAST_GREY_LEVELS / planes.std()
    field = 127.5 + planes[0] + COLOUR_SHARE * planes[1:]
    pixels = field.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    endless = np.tile(pixels, (2, 2, 1))  # periodic continuation of the field

    def draw(number: int) -> Image.Image:
        y, x = np.random.default_rng([seed, number]).integers(0, side, 2)
        return Image.fromarray(endless[y : y + SOURCE_SIDE, x : x + SOURCE_SIDE])

    write_all(draw, folder, per_class, suffix)


def write_flat(folder: Path, per_class: int, side: int) -> None:
    """Write small files, each of a different single colour."""

    def draw(number: int) -> Image.Image:
        return Image.new("RGB", (side, side), (number >> 16, number >> 8 & 255, number & 255))

    write_all(draw, folder, per_class, "png")


def write_all(
    draw: Callable[[int], Image.Image], folder: Path, per_class: int, suffix: str
) -> None:
    """Write the drawn images into a folder for each class, on all cores."""
    log.info("write %d files", len(CLASSES) * per_class)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)

    def write(number: int) -> None:
        name, in_class = CLASSES[number // per_class], number % per_class
        draw(number).save(folder / name / f"{in_class:06d}.{suffix}", **SAVE_OPTIONS[suffix])

    with ThreadPoolExecutor(CORES) as pool:
        for _ in pool.map(write, range(len(CLASSES) * per_class)):
            pass


# ------------------------------------------------------------------------------------- training


def now(device: torch.device) -> float:
    """Current time in seconds, after synchronising the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Meter(pl.Callback):
    """Images/s from the end of the warm-up to the end of the epoch's last training batch."""

    images_per_second: float

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Start or stop the clock."""
        if batch_idx + 1 == WARM_UP:
            self._started = now(pl_module.device)
        elif batch_idx + 1 == trainer.num_training_batches:
            images = (batch_idx + 1 - WARM_UP) * len(batch.labels)
            self.images_per_second = images / (now(pl_module.device) - self._started)


def train_ours(settings: TrainSettings, folder: Path) -> tuple[float, float]:
    """Fit as train.py does; returns images/s of its training batches, and seconds in total."""
    started = time.perf_counter()
    meter = Meter()
    data, task, trainer = assemble_detector(settings, config.flat(settings), folder, meter)
    trainer.fit(task, datamodule=data)
    return meter.images_per_second, time.perf_counter() - started


def to_pixel_values(image: Tensor) -> Tensor:
    """Scale from [0, 1] to [0, 255], the input range of detectors."""
    return image * 255


def blurred_and_compressed(image: Image.Image) -> Image.Image:
    """CNNDetection's augmentation of one image: a Gaussian blur, then JPEG, each with a chance."""
    pixels = np.array(image)
    if random.random() < PROBABILITY:
        sigma = random.uniform(0, BLUR_SIGMA)
        for channel in range(pixels.shape[2]):
            gaussian_filter(pixels[..., channel], sigma, output=pixels[..., channel])
    if random.random() < PROBABILITY:
        quality = random.randint(*JPEG_QUALITIES)
        through = random.choice((through_opencv, through_pillow))
        pixels = through(pixels, quality)
    return Image.fromarray(pixels)


def through_opencv(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Save as JPEG and decode, by OpenCV, whose channels are reversed."""
    _, saved = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(saved, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1].astype(np.uint8)


def through_pillow(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Save as JPEG and decode, by Pillow."""
    saved = io.BytesIO()
    Image.fromarray(pixels).save(saved, "jpeg", quality=quality)
    return np.array(Image.open(saved))


class Loop(NamedTuple):
    """A training loop written by hand, on the same device and with the same settings as ours."""

    settings: TrainSettings
    device: torch.device
    steps: int

    def on_resident_batch(self, arithmetic: Arithmetic) -> float:
        """The bare step on one random batch that stays on the device; images/s."""
        count, size = self.settings.batch_size, self.settings.dataset.image_size
        images = torch.rand(count, 3, size, size, device=self.device) * 255
        images = images.contiguous(memory_format=arithmetic.layout)
        labels = (torch.arange(count, device=self.device) % 2).float()
        return self._run(itertools.repeat((images, labels)), arithmetic)

    def on_files(self, folder: Path, workers: int, *, augmented: bool = False) -> float:
        """Like public detectors: each image opened, resized and normalised separately; images/s.

        Args:
            folder: has a folder for each of `CLASSES`.
            workers: processes that do so.
            augmented: whether they also blur, compress, crop and mirror, as CNNDetection's do.
        """
        size = self.settings.dataset.image_size
        loaded = size * LOADED_SIDE // CROPPED_SIDE
        steps = [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Lambda(to_pixel_values),
        ]
        if augmented:
            steps[:1] = [
                transforms.Resize((loaded, loaded)),
                transforms.Lambda(blurred_and_compressed),
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
            ]
        loader: DataLoader[Any] = DataLoader(
            ImageFolder(folder, transforms.Compose(steps)),
            batch_size=self.settings.batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        return self._run(iter(loader), CONVENTIONAL)

    def on_stacked(self, count: int) -> float:
        """The bare step of several detectors stacked by `torch.func`, each with its own batch.

        In float32 and NCHW: `torch.vmap` has no BatchNorm under autocast (torch 2.15).

        Returns:
            Images/s of all detectors together.
        """
        detectors = [self._detector(CONVENTIONAL) for _ in range(count)]
        weights, buffers = torch.func.stack_module_state(detectors)
        skeleton = copy.deepcopy(detectors[0]).to("meta")
        size, of_each = self.settings.dataset.image_size, self.settings.batch_size
        images = torch.rand(count, of_each, 3, size, size, device=self.device) * 255
        labels = (torch.arange(of_each, device=self.device) % 2).float().expand(count, -1)
        # Element by element, so that one optimizer serves all detectors.
        optimizer = torch.optim.Adam(weights.values())

        def loss(*given: Any) -> Tensor:  # noqa: ANN401
            of_weights, of_buffers, inputs, targets = given
            scores = torch.func.functional_call(skeleton, (of_weights, of_buffers), (inputs,))
            return binary_cross_entropy_with_logits(scores, targets)

        for step in range(WARM_UP + self.steps):
            if step == WARM_UP:
                started = now(self.device)
            gradients = torch.func.vmap(torch.func.grad(loss))(weights, buffers, images, labels)
            for name, tensor in weights.items():
                tensor.grad = gradients[name]
            optimizer.step()
        return self.steps * count * of_each / (now(self.device) - started)

    def _detector(self, arithmetic: Arithmetic) -> Detector:
        size = self.settings.dataset.image_size
        detector = self.settings.detector.build(size, pretrained=False).train()
        return detector.to(self.device).to(memory_format=arithmetic.layout)

    def _run(self, batches: Iterator[tuple[Tensor, Tensor]], arithmetic: Arithmetic) -> float:
        settings, device = self.settings, self.device
        pl.seed_everything(settings.seed, verbose=False)
        detector = self._detector(arithmetic)
        optimizer = detector.optimizer()
        assert optimizer is not None
        for step, (images, labels) in enumerate(itertools.islice(batches, WARM_UP + self.steps)):
            if step == WARM_UP:
                started = now(device)
            images, labels = images.to(device), labels.to(device).float()
            with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic.bfloat16):
                loss = binary_cross_entropy_with_logits(detector(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return self.steps * settings.batch_size / (now(device) - started)


def _as_ours(settings: TrainSettings, device: torch.device) -> Arithmetic:
    """Precision and layout of train.py."""
    return Arithmetic(
        in_bfloat16(settings.trainer.precision, device.type == "cuda"),
        torch.channels_last if settings.trainer.channels_last else torch.contiguous_format,
    )


def measure_training(arguments: argparse.Namespace, folder: Path) -> Measured:
    """Every training method in turn, in rounds, so that a slowdown affects them all."""
    measured: Measured = defaultdict(list)
    plain = compose(arguments)
    images_per_class = (WARM_UP + arguments.steps) * plain.batch_size / len(CLASSES)
    per_class = round(images_per_class / (1 - plain.dataset.validation_share)) + 2
    photographs = {f"{SOURCE_SIDE} px {suffix}": folder / suffix for suffix in arguments.suffix}
    for sources, place in photographs.items():
        on_photographs = on_two_classes(place, per_class)
        write_photographs(place, per_class, place.name, plain.seed)
        started = time.perf_counter()
        prepared(compose(arguments, *on_photographs))
        rate = len(CLASSES) * per_class / (time.perf_counter() - started)
        measured[Figure("open", f"build a cache from {sources}", "images/s")] = [rate]

    # Made here because this also sets the float32 precision of the process.
    device = build_trainer(
        plain.trainer, 1, plain.logger, folder / "unused", []
    ).strategy.root_device
    as_ours = _as_ours(plain, device)
    loop = Loop(plain, device, arguments.steps)
    run = itertools.count()

    def ours(preprocess: str) -> float:
        settings = compose(arguments, *on_photographs, f"preprocess={preprocess}")
        rate, seconds = train_ours(settings, folder / f"run{next(run)}")
        whole = f"ours, {preprocess}: entire fit with start-up, validation and checkpoints"
        measured[Figure("training", whole, "s")].append(seconds)
        return rate

    ways: dict[str, Callable[[], float]] = {}
    ratios = []
    if "step" in arguments.parts:
        bare = [f"bare step, {arithmetic}" for arithmetic in (CONVENTIONAL, as_ours)]
        ways[bare[0]] = lambda: loop.on_resident_batch(CONVENTIONAL)
        ways[bare[1]] = lambda: loop.on_resident_batch(as_ours)
        for preprocess in ("none", "noise", "blur"):
            ways[f"ours, {preprocess}"] = partial(ours, preprocess)
            ratios.append((f"ours, {preprocess}", bare[1]))
        ratios.append(("ours, none", bare[0]))
    for part, ours_too in (("conventional", "none"), ("augmented", "blur_jpeg")):
        if part not in arguments.parts:
            continue
        ways[f"ours, {ours_too}"] = partial(ours, ours_too)
        for (sources, place), workers in itertools.product(photographs.items(), (CORES, 0)):
            way = f"{part}, {sources}, {workers} workers"
            ways[way] = partial(loop.on_files, place, workers, augmented=part == "augmented")
            ratios.append((f"ours, {ours_too}", way))
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(arguments.rounds):
        # In alternating order, so that a steady change of speed favours none.
        for way in list(ways)[:: 1 if number % 2 else -1]:
            rates[way].append(ways[way]())
            log.info("round %d: %s: %.1f images/s", number + 1, way, rates[way][-1])
    measured |= {Figure("training", way, "images/s"): values for way, values in rates.items()}
    for over, under in ratios:
        by_round = [a / b for a, b in zip(rates[over], rates[under], strict=True)]
        measured[Figure("training", f"({over}) / ({under})", "ratio")] = by_round
    return measured


# ---------------------------------------------------------------------------- several runs at once


def measure_several(arguments: argparse.Namespace, folder: Path) -> Measured:
    """The bare steps of several detectors at once: in turn, stacked, and in processes."""
    plain = compose(arguments)
    trainer = build_trainer(plain.trainer, 1, plain.logger, folder / "unused", [])
    device = trainer.strategy.root_device
    as_ours = _as_ours(plain, device)
    loop = Loop(plain, device, arguments.steps)
    spawn = multiprocessing.get_context("spawn")
    measured: Measured = defaultdict(list)
    processes = min(AT_ONCE, CORES)

    def in_processes() -> float:
        started = time.perf_counter()
        pool.map(loop.on_resident_batch, [as_ours] * AT_ONCE, chunksize=1)
        images: int = AT_ONCE * (WARM_UP + arguments.steps) * plain.batch_size
        return images / (time.perf_counter() - started)  # the warm-up included

    with spawn.Pool(processes, torch.set_num_threads, (CORES // processes,)) as pool:
        ways: dict[str, Callable[[], float]] = {
            "in turn": lambda: loop.on_resident_batch(as_ours),
            f"stacked, {CONVENTIONAL}": lambda: loop.on_stacked(AT_ONCE),
            f"in {processes} processes": in_processes,
        }
        for number in range(arguments.rounds):
            rates = {way: train() for way, train in ways.items()}
            log.info("round %d: %s", number + 1, rates)
            for way, rate in rates.items():
                name = f"{AT_ONCE} detectors, {way}"
                measured[Figure("several", name, "images/s")].append(rate)
                if way != "in turn":
                    ratio = Figure("several", f"({name}) / (in turn)", "ratio")
                    measured[ratio].append(rate / rates["in turn"])
    return measured


# --------------------------------------------------------------------------- opening and memory


def measure_open(arguments: argparse.Namespace, folder: Path) -> Measured:
    """Seconds to open a source with an existing cache, of very small files."""
    write_flat(folder / "flat", arguments.open_images // len(CLASSES), OPENED_SIDE)
    dataset = compose(arguments).dataset
    preparation = Preparation(
        OPENED_SIDE, dataset.resize_filter, OPENED_SIDE, dataset.max_rejected_share
    )
    seconds = []
    for _ in range(1 + OPENED_TIMES):
        started = time.perf_counter()
        source = open_source("flat", folder / "flat", preparation, folder / "cache")
        seconds.append(time.perf_counter() - started)
    images = f"{len(source)} images"
    return {
        Figure("open", f"build a cache of {images} of {OPENED_SIDE} px", "s"): seconds[:1],
        Figure("open", f"open a warm cache of {images}", "s"): seconds[1:],
    }


def resident() -> dict[str, float]:
    """Resident memory of this process in MiB: total, and without mapped files."""
    status = Path("/proc/self/status").read_text().splitlines()
    lines = dict(line.split(":", 1) for line in status)
    return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def read_through(folder: Path) -> None:
    """Read files sequentially into the system's file cache, as a copy or a backup does.

    The cache then uses large pages, so that one access to a mapping counts megabytes as resident.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(2**20):
                    pass


def growth(settings: TrainSettings) -> dict[str, float]:
    """Growth of `resident` in MiB by opening the data, and by then reading an epoch."""
    before = resident()
    data = prepared(settings)
    opened = peak = resident()
    for _ in data.train_dataloader():
        reached = resident()
        peak = {name: max(peak[name], reached[name]) for name in peak}
    grown = {f"{name} by opening": opened[name] - before[name] for name in before}
    return grown | {f"{name} by reading an epoch": peak[name] - opened[name] for name in before}


def measure_memory(arguments: argparse.Namespace, folder: Path) -> Measured:
    """Growth of resident memory with n and with 4 n images, each in a process of its own."""
    measured: Measured = {}
    for images in (arguments.memory_images, 4 * arguments.memory_images):
        place, per_class = folder / f"flat{images}", images // len(CLASSES)
        settings = compose(arguments, *on_two_classes(place, per_class))
        write_flat(place, per_class, settings.dataset.image_size)
        prepared(settings)
        read_through(Path(settings.cache_dir))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            grown = pool.apply(growth, (settings,))
        for name, mib in grown.items():
            measured[Figure("memory", f"{images} images: growth of {name}", "MiB")] = [mib]
    return measured


# ------------------------------------------------------------------------------------- accuracy


def measure_accuracy(arguments: argparse.Namespace, folder: Path) -> Measured:
    """ACC and TNR of train.py on the demo, bfloat16 against float32, seed by seed."""
    measured: Measured = defaultdict(list)

    def run(precision: str, seed: int) -> dict[str, float]:
        log.info("accuracy: seed %d, %s", seed, precision)
        place = folder / f"{precision}_seed{seed}"
        command = [
            sys.executable, "train.py", "dataset=demo", *arguments.overrides,
            f"dataset.root={folder}/demo", f"cache_dir={folder}/cache", f"hydra.run.dir={place}",
            f"trainer.precision={precision}", f"seed={seed}",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True)
        rates = defaultdict(list)
        for pair in json.loads((place / runs.RESULT).read_text())["pairs"]:
            for metric in ("acc", "tnr"):
                name = f"{metric.upper()}, {'seen' if pair['seen'] else 'unseen'} generators"
                rates[name].append(100 * pair["at_0.5"][metric])
        return {name: statistics.mean(values) for name, values in rates.items()}

    for seed in ACCURACY_SEEDS:
        fp32, bf16 = run("fp32", seed), run("bf16", seed)
        for name in fp32:
            measured[Figure("accuracy", f"{name}, fp32", "%")].append(fp32[name])
            measured[Figure("accuracy", f"{name}, bf16", "%")].append(bf16[name])
            difference = bf16[name] - fp32[name]
            measured[Figure("accuracy", f"{name}, bf16 - fp32", "points")].append(difference)
    return measured


# --------------------------------------------------------------------------------------- sweeps


def measure_sweep(arguments: argparse.Namespace, folder: Path) -> Measured:
    """Jobs an hour: cold runs, one sweep, and sweeps of several jobs at once.

    Every method runs the jobs of `SWEPT`, starting without prepared images; jobs that run at once
    share the cores.
    """

    def train(number: int, options: list[str], *overrides: str, threads: int = CORES) -> None:
        command = [
            sys.executable, "train.py", *options, *arguments.overrides,
            f"cache_dir={folder}/cache{number}", *overrides,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, cwd=ROOT, check=True, env=environment)

    def cold() -> None:
        for number, job in enumerate(itertools.product(*SWEPT.values())):
            chosen = [f"{key}={value}" for key, value in zip(SWEPT, job, strict=True)]
            train(number, [], *chosen, f"hydra.run.dir={folder}/cold{number}")

    def sweep(at_once: int) -> None:
        chosen = [f"{key}={','.join(values)}" for key, values in SWEPT.items()]
        launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
        train(
            -at_once, ["-m"], *chosen, f"hydra.sweep.dir={folder}/sweep{at_once}",
            *(launcher if at_once > 1 else ()), threads=CORES // at_once,
        )  # fmt: skip

    jobs = math.prod(map(len, SWEPT.values()))
    at_once = min(CORES, jobs)
    ways: dict[str, Callable[[], None]] = {
        "one run after the other, each preparing its images": cold,
        "a sweep": lambda: sweep(1),
        f"a sweep, {at_once} jobs at once": lambda: sweep(at_once),
    }
    measured: Measured = {}
    for name, way in ways.items():
        log.info("sweep: %s", name)
        started = time.perf_counter()
        way()
        hours = (time.perf_counter() - started) / 3600
        measured[Figure("sweep", name, "jobs/h")] = [jobs / hours]
    return measured


# -------------------------------------------------------------------------------------- results


def rows_of(measured: Measured) -> list[dict[str, str]]:
    """Rows of the results, each with its range and the machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    provenance, of_cpu = runs.provenance(device), runs.provenance(torch.device("cpu"))
    where = {
        "device": provenance["device"],
        "cpu": of_cpu["device"],
        "machine": f"{platform.system()} {platform.machine()}, {CORES} cores",
        "threads": str(provenance["threads"]),
        "torch": provenance["versions"]["torch"],
        "commit": f"{provenance['git_commit']}{'+' if provenance['git_changed'] else ''}",
    }
    rows = []
    for figure, values in measured.items():
        spread = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        numbers = {name: f"{value:.4g}" for name, value in spread.items()}
        rows.append(figure._asdict() | numbers | {"n": str(len(values))} | where)
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows, replacing existing rows of the same figures and device."""

    def key(row: dict[str, str]) -> tuple[str, ...]:
        return row["part"], row["name"], row["device"]

    kept: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = list(csv.DictReader(file))
    new = {key(row) for row in rows}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*(row for row in kept if key(row) not in new), *rows])


MEASURES: dict[str, Callable[[argparse.Namespace, Path], Measured]] = {
    "step": measure_training,
    "conventional": measure_training,
    "augmented": measure_training,
    "several": measure_several,
    "open": measure_open,
    "memory": measure_memory,
    "accuracy": measure_accuracy,
    "sweep": measure_sweep,
}


def main() -> None:
    """Measure the requested parts, print and write the results."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--parts", default="step,conventional,open,memory",
        help=f"of {','.join(MEASURES)}; augmented, several, accuracy and sweep only if named",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="of every way to train")
    parser.add_argument("--steps", type=int, default=25, help="timed in each way and round")
    parser.add_argument(
        "--suffix", default="jpg", help=f"of the sources, of {','.join(SAVE_OPTIONS)}"
    )
    parser.add_argument("--open-images", type=int, default=100_000, help="in the cache opened")
    parser.add_argument("--memory-images", type=int, default=12_000, help="n of n and 4 n")
    parser.add_argument("--csv", type=Path, help="write the figures there, too")
    parser.add_argument("overrides", nargs="*", help="train.py's, such as batch_size=32")
    arguments = parser.parse_args()
    arguments.parts, arguments.suffix = arguments.parts.split(","), arguments.suffix.split(",")
    for name, known in (("parts", [*MEASURES]), ("suffix", [*SAVE_OPTIONS])):
        if unknown := set(getattr(arguments, name)).difference(known):
            parser.error(f"--{name} knows {', '.join(known)}, not {', '.join(sorted(unknown))}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config.register()

    measured: Measured = {}
    for measure in dict.fromkeys(MEASURES[part] for part in arguments.parts):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            measured |= measure(arguments, Path(folder))
    rows = rows_of(measured)
    for row in rows:
        print("{name:78} {min:>8} {median:>8} {max:>8} {unit} (n={n})".format(**row))
    if arguments.csv is not None:
        write_csv(arguments.csv, rows)


if __name__ == "__main__":
    main()
