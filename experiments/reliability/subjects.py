"""What is killed and raced: small runs of every program, and what of their results must not vary.

Each run is a process forked from this one, which has imported everything, so that seconds are
spent at work and not in imports.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from forensics import runs
from forensics.cli import main as forensics

Outcome = dict[str, str]
"""Digests by name of what a repetition must reproduce bit for bit."""

SIZE = 16
TRAIN = [
    "dataset=paper", "dataset.root=faces", "dataset.real=[real]",
    "dataset.generators=[seen,unseen]", "dataset.train_on=[seen]", f"dataset.image_size={SIZE}",
    "dataset.train_count=40", "dataset.test_count=10", "dataset.validation_share=0.2",
    "model.channels=[4,8]", "preprocess=blur_noise", "batch_size=8", "max_epochs=6", "trainer=cpu",
    "audit=off", "cache_dir=cache",
]  # fmt: skip
GENERATE = [
    "dataset.root=faces", "real=real", f"dataset.image_size={SIZE}", "trainer=cpu",
    "cache_dir=cache",
]  # fmt: skip
DCGAN = [*GENERATE, "generator.width=4", "steps_per_epoch=10", "max_epochs=6", "batch_size=8",
         "images=60"]  # fmt: skip
RESYNTHESIS = [*GENERATE, "generator=resynthesis", "generator.count=3", "generator.steps=[20,40]",
               "images=20"]  # fmt: skip


class Subject(NamedTuple):
    """A command to interrupt.

    Attributes:
        command: program and arguments, as on a command line.
        again: the command that continues it in a folder, given that folder.
        outcome: what it leaves in a folder.
        needs: the subject whose end it begins with, or None.
    """

    command: list[str]
    again: Callable[[Path], list[str]]
    outcome: Callable[[Path], Outcome]
    needs: str | None = None


def digest(*contents: bytes) -> str:
    """A short hash of contents and their order."""
    state = hashlib.blake2b(digest_size=8)
    for content in contents:
        state.update(len(content).to_bytes(8, "big") + content)
    return state.hexdigest()


def of_files(folder: Path, pattern: str) -> str:
    """Digest of files of a folder, by their names."""
    paths = sorted(folder.glob(pattern))
    return digest(*(part for path in paths for part in (path.name.encode(), path.read_bytes())))


def of_tensors(path: Path) -> str:
    """Digest of the weights of a network's file, whose metadata have times."""
    with safe_open(path, framework="np") as file:
        return digest(*(file.get_tensor(name).tobytes() for name in sorted(file.keys())))


def of_checkpoint(path: Path) -> str:
    """Digest of the weights and the optimizers' states of a checkpoint."""
    loaded = torch.load(path, weights_only=True)
    states = [loaded["state_dict"], *(one["state"] for one in loaded["optimizer_states"])]
    return digest(repr(states).encode(), *(
        tensor.numpy().tobytes() for tensor in loaded["state_dict"].values()
    ))  # fmt: skip


def trained(folder: Path) -> Outcome:
    """Weights, scores and metrics of a run of train.py."""
    result = json.loads((folder / runs.RESULT).read_text())
    chosen = {key: result[key] for key in ("epoch", "thresholds", "pairs", "test_hashes")}
    return {
        "last": of_checkpoint(folder / runs.CHECKPOINTS / "last.ckpt"),
        "best": of_checkpoint(folder / runs.CHECKPOINTS / "best.ckpt"),
        "detector": of_tensors(folder / runs.DETECTOR),
        "scores": of_files(folder, runs.SCORES),
        "result": digest(json.dumps(chosen).encode()),
    }


def sampled(folder: Path, source: str) -> Outcome:
    """Images of a generated source, and how many its record promises."""
    record = json.loads((folder / "faces" / source / "source.json").read_text())
    return {"images": of_files(folder / "faces" / source, "*.png"), "count": str(record["images"])}


def generated(folder: Path, source: str) -> Outcome:
    """Weights and images of a run of generate.py."""
    return sampled(folder, source) | {"weights": of_tensors(folder / "outputs/x" / runs.GENERATOR)}


def swept(folder: Path) -> Outcome:
    """The jobs of a sweep, and whether its report has them all."""
    sweep = folder / "outputs" / "sweep"
    jobs = {f"{job} {name}": value for job in ("seed0", "seed1")
            for name, value in trained(sweep / job).items()}  # fmt: skip
    return jobs | {"cells": of_files(sweep, "cells.csv")}


def resume(program: str, given: Sequence[str]) -> Callable[[Path], list[str]]:
    """How to continue a run: by its folder, or from the start if it had none yet."""

    def again(folder: Path) -> list[str]:
        begun = (folder / "outputs" / "x" / ".hydra" / "overrides.yaml").exists()
        return [program, "resume=outputs/x"] if begun else [program, *given]

    return again


def repeat(*command: str) -> Callable[[Path], list[str]]:
    """How to continue what the same command continues."""
    return lambda _: list(command)


SWEEP = ["-m", *TRAIN, "seed=0,1", "max_epochs=3", "hydra.sweep.dir=outputs/sweep",
         "hydra.sweep.subdir=seed${seed}"]  # fmt: skip
SWEEP = [one for one in SWEEP if one != "max_epochs=6"]
SAMPLE = ["sample=outputs/x", "source=more", "seed=5", "images=1500"]
PREPARE = ["prepare", "again", "faces.zip", "--root", "prepared", "--min-side", "1"]
PREDICT = ["predict", "outputs/x", "faces", "-o", "table.csv"]

SUBJECTS = {
    "training": Subject(
        ["train", *TRAIN, "name=x"],
        resume("train", [*TRAIN, "name=x"]),
        lambda folder: trained(folder / "outputs" / "x"),
    ),
    "generator": Subject(
        ["generate", *DCGAN, "name=x"],
        resume("generate", [*DCGAN, "name=x"]),
        lambda folder: generated(folder, "dcgan"),
    ),
    "sampling": Subject(
        ["generate", *SAMPLE],
        repeat("generate", *SAMPLE),
        lambda folder: sampled(folder, "more"),
        needs="generator",
    ),
    "resynthesis": Subject(
        ["generate", *RESYNTHESIS, "name=x"],
        resume("generate", [*RESYNTHESIS, "name=x"]),
        lambda folder: generated(folder, "resynthesis"),
    ),
    "sweep": Subject(["train", *SWEEP], repeat("train", *SWEEP), swept),
    "prepare": Subject(
        ["forensics", *PREPARE],
        repeat("forensics", *PREPARE),
        lambda folder: {"files": of_files(folder / "prepared" / "again", "*")},
    ),
    "predict": Subject(
        ["forensics", *PREDICT],
        lambda folder: ["forensics", *PREDICT,
                        *(["--resume"] if list(folder.glob("table.csv*")) else [])],
        lambda folder: {"table": of_files(folder, "table.csv")},
        needs="training",
    ),
}  # fmt: skip


def write_faces(folder: Path) -> None:
    """Sources of noise, and an archive of one."""
    for seed, (name, count) in enumerate({"real": 60, "seen": 60, "unseen": 10}.items()):
        (folder / "faces" / name).mkdir(parents=True)
        draws = np.random.default_rng(seed)
        for number in range(count):
            pixels = draws.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "faces" / name / f"{number:03d}.png")
    shutil.make_archive(str(folder / "faces"), "zip", folder / "faces" / "real")


class Process:
    """A command in a process of its own, and in a group of its own.

    Args:
        command: program and arguments.
        folder: its current folder, which also gets its output.
        delay: seconds to wait before it begins.
    """

    def __init__(self, command: Sequence[str], folder: Path, delay: float = 0.0) -> None:
        sys.stdout.flush()
        self.log = folder / f".said_{time.monotonic_ns()}.txt"
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_work(command, folder, self.log, delay))
        os.setpgid(self.pid, self.pid)  # here, too: it may be killed before it has begun

    def wait(self, seconds: float = 600.0) -> int | None:
        """The exit code, negative for a signal; None if it still runs after so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None

    def kill(self) -> None:
        """End the process and those it has started, at once."""
        os.killpg(self.pid, signal.SIGKILL)


def _work(command: Sequence[str], folder: Path, log: Path, delay: float) -> int:
    program, *arguments = command
    os.setpgid(0, 0)
    os.chdir(folder)
    with log.open("w") as said:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
    try:
        time.sleep(delay)
        sys.argv = [f"{program}.py", *arguments]
        if program == "forensics":
            return forensics(arguments)
        importlib.import_module(f"forensics.programs.{program}").run()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def done(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end; returns its seconds.

    Raises:
        RuntimeError: if it fails.
    """
    started = time.monotonic()
    process = Process(command, folder)
    if code := process.wait():
        raise RuntimeError(f"{' '.join(command)}: {code}\n{process.log.read_text()[-3000:]}")
    return time.monotonic() - started


def import_everything() -> None:
    """Import the programs, for the processes that are forked; on one thread, as promised."""
    torch.set_num_threads(1)
    for program in ("train", "generate", "evaluate"):
        importlib.import_module(f"forensics.programs.{program}")


def left_over(folder: Path) -> list[str]:
    """Unfinished files below a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*.unfinished")]
