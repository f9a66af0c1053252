"""Small folders of images and the settings that read them, for every test."""

from __future__ import annotations

import os

# On matrices as small as here, threads of the libraries wait for each other longer than they work,
# and do it by spinning. They read this when they are loaded, in programs that tests start, too.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import logging
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import IO, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from forensics.data.opening import open_source
from forensics.data.settings import DatasetSettings, Protocol
from forensics.data.sources import Preparation, Source
from forensics.detectors.card import (
    Calibration,
    DetectorCard,
    Input,
    Provenance,
    SpectrumGuard,
)
from forensics.detectors.dcgan_discriminator import DcganDiscriminatorSettings
from forensics.detectors.residual_patches import ResidualPatchesSettings
from forensics.images.decode import POLICY_VERSION, decode
from forensics.images.geometry import Match, ResizeFilter, View
from forensics.images.spectra import profiles
from forensics.model_files import save_model

torch.set_num_threads(1)

SIZE = 16
"""Height and width of the tests' images in pixels: four convolutions halve it to 1."""

PREPARATION = Preparation(SIZE, ResizeFilter.lanczos, SIZE, 0.0)
"""Rows of `SIZE` pixels, of files of which none may be rejected."""


def write_images(folder: Path, count: int, seed: int = 0, size: int = SIZE) -> list[Path]:
    """Write seeded noise as ``000.png`` and so on; no two images are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    paths = [folder / f"{number:03d}.png" for number in range(count)]
    for path in paths:
        pixels = generator.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
    return paths


def photos(n: int, side: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Images with structure at every scale and much contrast, no two alike."""
    draws = np.random.default_rng(seed)
    images = torch.full((n, 3, side, side), 128.0, dtype=torch.float64)
    for cells, contrast in ((side // 8, 40), (side // 4, 20), (side // 2, 10), (side, 6)):
        drawn = torch.from_numpy(draws.normal(0, contrast, (n, cells, cells, 3)))
        field = drawn.permute(0, 3, 1, 2)
        images += interpolate(field, (side, side), mode="bilinear", align_corners=True)
    return images.permute(0, 2, 3, 1).clamp(0, 255).round().byte().numpy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images."""
    write_images(tmp_path / "faces", 6)
    return tmp_path / "faces"


@pytest.fixture
def opened(tmp_path: Path, folder: Path) -> Callable[..., Source]:
    """Open the folder as a source; takes a preparation."""

    def open_(preparation: Preparation = PREPARATION) -> Source:
        return open_source("faces", folder, preparation, tmp_path / "cache")

    return open_


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU and, where there is one, a GPU."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What images are computed in."""
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """What a program sets of logging ends with its test."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture
def faces(tmp_path: Path) -> Callable[..., DatasetSettings]:
    """Make a data set of noise: ``real`` and ``seen`` to train on, ``unseen`` to test only.

    Takes the images of each source, real, seen, unseen, and settings other than the usual ones.
    """

    def make(counts: tuple[int, int, int] = (30, 30, 10), **changes: object) -> DatasetSettings:
        root = tmp_path / "faces"
        for seed, (name, count) in enumerate(zip(("real", "seen", "unseen"), counts, strict=True)):
            write_images(root / name, count, seed)
        usual: dict[str, object] = {
            "root": str(root),
            "find_layout": False,
            "folders": {},
            "below": {},
            "real": ["real"],
            "unseen_real": [],
            "generators": ["seen", "unseen"],
            "pairs": {},
            "train_on": ["seen"],
            "validate_on": [],
            "paired": False,
            "split": Protocol.first_last,
            "listed": {},
            "group": None,
            "train_count": 20,
            "test_count": 10,
            "drop_near_duplicates": False,
            "validation_share": 0.2,
            "image_size": SIZE,
            "view": View.resize,
            "crop_size": None,
            "resize_filter": ResizeFilter.lanczos,
            "match": Match.none,
            "min_side": SIZE,
            "max_rejected_share": 0.0,
            "toy": False,
        }
        return DatasetSettings(**(usual | changes))  # type: ignore[arg-type]

    return make


ADAM: dict[str, Any] = {
    "learning_rate": 2e-4,
    "betas": [0.5, 0.999],
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_epochs": 0.0,
}


def dcgan_discriminator(channels: list[int], **changes: Any) -> DcganDiscriminatorSettings:  # noqa: ANN401
    """Settings of the paper's detector with some channels."""
    return DcganDiscriminatorSettings(
        **({"channels": channels, "leaky_relu_slope": 0.2} | ADAM | changes)  # type: ignore[arg-type]
    )


def residual_patches(channels: list[int], **changes: Any) -> ResidualPatchesSettings:  # noqa: ANN401
    """Settings of the small network on a residual with some channels."""
    return ResidualPatchesSettings(**({"channels": channels, "front_end": "npr"} | ADAM | changes))


NETWORK = dcgan_discriminator([4, 8])


def detector_card(**changes: Any) -> DetectorCard:  # noqa: ANN401
    """Of a detector trained on noise like the tests' images; wide thresholds by default.

    Takes fields of the card's sections, and ``guard``.
    """
    noise = np.random.default_rng(0).integers(0, 256, (200, SIZE, SIZE, 3), np.uint8)
    of_noise = profiles(noise)
    spectra = {"real": {"mean": of_noise.mean(0).tolist(), "std": of_noise.std(0).tolist()}}
    input_ = {
        "image_size": SIZE,
        "resize_filter": "lanczos",
        "match": "none",
        "decode_policy": POLICY_VERSION,
        "precision": "fp32",
        "view": "resize",
        "crop_size": None,
    }
    calibration = {
        "thresholds": {"0.5": 0.0, "source_0.05": -99.0, "source_0.01": -100.0},
        "offset": 0.0,
        "temperature": 2.0,
        "real_mean": 0.0,
        "real_std": 1.0,
        "largest_changes": None,
    }
    provenance = {
        "real": ["real"],
        "trained_on": ["seen"],
        "preprocess": "none",
        "toy": False,
        "seed": 0,
        "version": "0.1.0",
        "git_commit": None,
    }
    guard = changes.pop("guard", SpectrumGuard(spectra, 6.0))
    for name in list(changes):
        section = next(one for one in (input_, calibration, provenance) if name in one)
        section[name] = changes.pop(name)
    settings = {"channels": [4, 8], "leaky_relu_slope": 0.2} | ADAM
    return DetectorCard(
        "dcgan_discriminator",
        settings,
        None,
        Input(**input_),  # type: ignore[arg-type]
        Calibration(**calibration),  # type: ignore[arg-type]
        guard,
        Provenance(**provenance),  # type: ignore[arg-type]
    )


def write_detector(path: Path, seed: int, /, **card: Any) -> Path:  # noqa: ANN401
    """Write the file of an untrained detector; takes what `detector_card` takes."""
    torch.manual_seed(seed)
    content = detector_card(**card)
    network = NETWORK.build(content.input.image_size, pretrained=False)
    save_model(path, network, content.to_file())
    return path


@pytest.fixture
def detector_file(tmp_path: Path) -> Path:
    """The file of an untrained detector, in a folder as a run leaves it."""
    (tmp_path / "run").mkdir()
    return write_detector(tmp_path / "run" / "detector.safetensors", 0)


def program_runner(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run an entry point in this process, from a folder; returns the exit code."""
    monkeypatch.chdir(folder)
    # What the run sets is put back afterwards.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()

    def run(program: Path, *given: str) -> int:
        # Options come before settings, or Hydra does not understand them.
        options = [one for one in given if one.startswith("-")]
        logged = root.level, root.handlers[:]
        settings = [one for one in given if one not in options]
        monkeypatch.setattr(sys, "argv", [str(program), *options, *settings])
        try:
            runpy.run_path(str(program), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            for one, action in handlers.items():
                signal.signal(one, action)
            # Hydra's would write to what is captured of this test when others run.
            for handler in set(root.handlers) - set(logged[1]):
                root.removeHandler(handler)
                handler.close()
            root.setLevel(logged[0])
        return 0

    return run


@pytest.fixture
def run_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run an entry point in this process, from ``tmp_path``; returns the exit code."""
    return program_runner(tmp_path, monkeypatch)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not drawn, which takes a third of a tiny run's time.

    For tests of what else a program does, in this process.
    """

    def image_of(figure: object, close: bool = True) -> NDArray[np.uint8]:
        return np.zeros((3, 8, 8), np.uint8)

    def save(figure: object, file: Path | IO[bytes], **_: object) -> None:
        if isinstance(file, Path):
            file.touch()
        else:
            file.write(b"not drawn")

    monkeypatch.setattr("torch.utils.tensorboard.writer.figure_to_image", image_of)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


@pytest.fixture
def arguments(faces: Callable[..., DatasetSettings]) -> list[str]:
    """A tiny data set and detector, seen from ``tmp_path``; two epochs of four batches."""
    faces()
    return [
        "dataset=paper",
        "dataset.root=faces",
        "dataset.real=[real]",
        "dataset.generators=[seen,unseen]",
        "dataset.train_on=[seen]",
        "dataset.image_size=16",
        "dataset.train_count=20",
        "dataset.test_count=10",
        "dataset.validation_share=0.2",
        "model.channels=[4,8]",
        "batch_size=8",
        "max_epochs=2",
        "trainer=cpu",
        "cache_dir=cache",
    ]


def started(
    program: Path, *given: str, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    """Start an entry point as its own process, with variables added to its environment."""
    return subprocess.Popen(
        [sys.executable, str(program), *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # As in this process: sums over more threads round differently.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **variables},
        # Where the tests run in the background, Ctrl-C would be ignored in this process, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def dying_train(folder: Path) -> Path:
    """Write a ``train.py`` that is killed in the third batch of the third epoch."""
    program, dying = Path(__file__).parents[1] / "train.py", folder / "dying.py"
    dying.write_text(
        "import os, runpy, signal, sys\n"
        f"sys.path.insert(0, {str(program.parent)!r})\n"
        "from forensics.training.detector_task import DetectorTask\n"
        "step = DetectorTask.training_step\n"
        "def dying(self, batch, batch_idx):\n"
        "    if (self.current_epoch, batch_idx) == (2, 2):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, batch_idx)\n"
        "DetectorTask.training_step = dying\n"
        f"sys.argv[0] = {str(program)!r}\n"
        f"runpy.run_path({str(program)!r}, run_name='__main__')\n"
    )
    return dying


def names_decoded(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[str]:
    """Names of the files that a module decodes from here on."""
    names: list[str] = []

    def counted(path: Path, min_side: int) -> object:
        names.append(path.name)
        return decode(path, min_side)

    monkeypatch.setattr(module, "decode", counted)
    return names


def stop(*_: object, **__: object) -> None:
    """What Ctrl-C does, in the place of any function."""
    raise KeyboardInterrupt
