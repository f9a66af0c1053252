"""Speed of training and sampling of generators, compared with bare step and forward pass.

``python experiments/generators/benchmark.py`` prints and writes ``benchmark.csv`` beside this file.
Each is measured with the settings of the study (README.md), in rounds, so that a slowdown of the
machine affects them all; nothing else should run.
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch

from forensics import config, runs
from forensics.compute import in_bfloat16, in_order, torch_threads
from forensics.data.faces import open_faces
from forensics.generators import Gan, sampling
from forensics.preprocess.base import Draws
from forensics.training.settings import GenerateSettings
from forensics.training.trainer import assemble_generator, pick_device

ROOT = Path(__file__).resolve().parents[2]
STUDY = {
    "dcgan": ["batch_size=64", "generator.width=32"],
    "wgan_gp": ["batch_size=32", "generator.width=24", "generator.critic_steps=2"],
    "pggan": [
        "batch_size=16", "generator.latent_size=192", "generator.first_resolution=128",
        "generator.channels=[192,192,128,64,32,16]",
    ],
}  # fmt: skip
"""The study's networks; PGGAN at full size, where it is slowest."""
ROUNDS, WARM_UP, STEPS, SAMPLES = 3, 2, 8, 500


class Clock(pl.Callback):
    """Generator steps per second, after the warm-up."""

    rate: float

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:  # noqa: ANN401
        """Start or stop the clock."""
        critic_steps = pl_module.gan.critic_steps
        steps, rest = divmod(_[-1] + 1, critic_steps)
        if rest == 0 and steps == WARM_UP:
            self._started = now()
        elif rest == 0 and steps == WARM_UP + STEPS:
            self.rate = STEPS / (now() - self._started)


def now() -> float:
    """Current time in seconds, after synchronising the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def compose(name: str, folder: Path) -> GenerateSettings:
    """The settings of generate.py for one of `STUDY`."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [
            f"generator={name}", *STUDY[name], f"dataset.root={folder}", "source=none", "name=none",
            f"cache_dir={folder}/cache", "max_epochs=1", f"steps_per_epoch={WARM_UP + STEPS}",
        ]  # fmt: skip
        return config.typed(hydra.compose("generate", overrides), GenerateSettings)


def built(settings: GenerateSettings) -> Gan:
    """The networks, on the device."""
    pl.seed_everything(settings.seed, verbose=False)
    gan = settings.gan.build(settings.dataset.image_size)
    assert isinstance(gan, Gan)
    return gan.to(pick_device(settings.trainer))


def bare_steps(settings: GenerateSettings) -> float:
    """Steps/s of the same losses and optimizers on one resident random batch."""
    gan = built(settings).to(memory_format=torch.channels_last)
    device, size = gan.device, settings.dataset.image_size
    images = torch.rand(settings.batch_size, 3, size, size, device=device) * 2 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    generator_adam, critic_adam = gan.optimizers()
    draws = Draws.at(0, 0, 0, device=device).own
    bfloat16 = in_bfloat16(settings.trainer.precision, device.type == "cuda")
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            started = now()
        for turn in range(gan.critic_steps + 1):
            of_critic = turn < gan.critic_steps
            with torch.autocast(device.type, torch.bfloat16, bfloat16, cache_enabled=False):
                loss = (
                    gan.critic_loss(images, draws)
                    if of_critic
                    else gan.generator_loss(len(images), draws)
                )
            adam = critic_adam if of_critic else generator_adam
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        gan.after_generator_step()
    return STEPS / (now() - started)


def our_steps(settings: GenerateSettings, folder: Path) -> float:
    """Steps/s of generate.py's own pieces on a warm cache."""
    clock = Clock()
    data, task, trainer = assemble_generator(
        settings, config.flat(settings), built(settings), folder, clock
    )
    trainer.fit(task, datamodule=data)
    return clock.rate


def sampled(work: Callable[[], object]) -> tuple[float, float]:
    """Images/s, and CPU ms/image of all cores, of a function that makes `SAMPLES` images."""
    started, cpu = now(), time.process_time()
    work()
    return SAMPLES / (now() - started), 1000 * (time.process_time() - cpu) / SAMPLES


def bare_samples(settings: GenerateSettings) -> tuple[float, float]:
    """The forward pass alone, in the same batches and threads."""
    gan = built(settings)
    latents = gan.draw_latents(sampling.AT_ONCE, torch.Generator().manual_seed(0))
    threads = max(1, torch.get_num_threads() // sampling.BLOCKS_AT_ONCE)
    with torch_threads(threads):
        gan.sample(latents)
        blocks = range(SAMPLES // sampling.AT_ONCE)
        passes = in_order(lambda _: gan.sample(latents), blocks, sampling.BLOCKS_AT_ONCE)
        return sampled(lambda: deque(passes, maxlen=0))


def our_samples(settings: GenerateSettings, folder: Path) -> tuple[float, float]:
    """Sampling of generate.py, with lossless writing."""
    gan = built(settings)
    gan.sample(gan.draw_latents(sampling.AT_ONCE, torch.Generator().manual_seed(0)))
    make = sampling.from_latents(gan, 0)
    return sampled(lambda: sampling.write_samples(make, folder, SAMPLES, {"seed": 0}))


def main() -> None:
    """Measure, print and write the results, in the place of earlier ones of the same name."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sampling", action="store_true", help="measure sampling alone")
    given = parser.parse_args()
    config.register()
    measured: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        for number in range(ROUNDS):
            for name in STUDY:
                settings = compose(name, folder)
                place = folder / f"{name}{number}"
                if not given.sampling:
                    open_faces(settings.real, settings.dataset, Path(settings.cache_dir))
                    bare, ours = bare_steps(settings), our_steps(settings, place / "run")
                    measured[name, "training, bare", "steps/s"].append(bare)
                    measured[name, "training, ours", "steps/s"].append(ours)
                    measured[name, "training, ours / bare", "ratio"].append(ours / bare)
                (bare, cpu), (ours, more) = (
                    bare_samples(settings), our_samples(settings, place / "png")
                )  # fmt: skip
                measured[name, "sampling, bare", "images/s"].append(bare)
                measured[name, "sampling, ours", "images/s"].append(ours)
                measured[name, "sampling, ours / bare", "ratio"].append(ours / bare)
                measured[name, "sampling, bare", "CPU ms/image"].append(cpu)
                measured[name, "sampling, ours", "CPU ms/image"].append(more)
                measured[name, "sampling, CPU of bare / of ours", "ratio"].append(cpu / more)
    of_machine = runs.provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    where = {
        "device": of_machine["device"], "threads": of_machine["threads"],
        "load": f"{os.getloadavg()[2]:.1f}", "torch": of_machine["versions"]["torch"],
        "commit": f"{of_machine['git_commit']}{'+' if of_machine['git_changed'] else ''}",
    }  # fmt: skip
    rows = {
        (name, what, unit): {
            "generator": name, "what": what, "unit": unit, "min": f"{min(values):.4g}",
            "median": f"{statistics.median(values):.4g}", "max": f"{max(values):.4g}",
            "n": len(values), **where,
        }
        for (name, what, unit), values in measured.items()
    }  # fmt: skip
    for row in rows.values():
        print("{generator:8} {what:31} {min:>8} {median:>8} {max:>8} {unit}".format(**row))
    path = Path(__file__).with_suffix(".csv")
    with path.open(newline="") as file:
        kept = {(row["generator"], row["what"], row["unit"]): row for row in csv.DictReader(file)}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(next(iter(rows.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows((kept | rows).values())


if __name__ == "__main__":
    main()
