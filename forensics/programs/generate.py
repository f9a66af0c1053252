"""Train a generator on real faces, then write generated images: a source for ``train.py``.

``python generate.py --help`` lists the settings.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from forensics import checks, config, files, runs
from forensics.checks import plain
from forensics.data.demo.artefacts import DEMO_SOURCES
from forensics.data.faces import open_faces
from forensics.data.sources import Source, rows_hash
from forensics.evaluation.sample_quality import COMPARED, quality
from forensics.generators import TRAINED, UPGRADES, Gan, HubPggan, Resynthesis, sampling
from forensics.launch import entry
from forensics.model_files import checksum, load_model, save_model
from forensics.programs import CONF
from forensics.reports.tables import quality_table, wrapped
from forensics.training import checkpoints
from forensics.training.autoencoders import fit_autoencoders
from forensics.training.generator_task import Unusable
from forensics.training.settings import QUICK, Debug, GenerateSettings
from forensics.training.trainer import assemble_generator, pick_device, take_rank

log = logging.getLogger(__name__)


TRIED = "tried.json"
"""Seeds that gave no usable generator, with the reasons."""


def train_some(
    settings: GenerateSettings, gan: Gan, folder: Path, resumed: Path | None
) -> GenerateSettings:
    """Train a generator with the given seed or, while it is unusable, with the next ones.

    Args:
        settings: the run's settings, with the seed reached.
        gan: the generator and its critic, with fresh weights.
        folder: the run's folder.
        resumed: the checkpoint to resume from, or None.

    Returns:
        The settings, with the seed of the trained generator.

    Raises:
        Unusable: if all seeds are used up.
    """
    tried = read_tried(folder)
    while True:
        try:
            train(settings, gan, folder, resumed, tried)
        except Unusable as error:
            if len(tried) >= settings.retry_seeds:
                raise
            tried.append({"seed": settings.seed, "reason": str(error)})
            log.warning(wrapped(f"{error} Next: seed={settings.seed + 1}."))
            # In this order: a run that is stopped between them begins the same seed again.
            shutil.rmtree(folder / runs.CHECKPOINTS, ignore_errors=True)
            for old in (folder / runs.EPOCHS, *folder.glob("events.out.tfevents.*")):
                old.unlink(missing_ok=True)
            files.write_json(folder / TRIED, {"tried": tried})
            settings, resumed = dataclasses.replace(settings, seed=settings.seed + 1), None
            gan = cast(Gan, fresh(settings))
        else:
            return settings


def read_tried(folder: Path) -> list[dict[str, Any]]:
    """The seeds of a run that gave no usable generator."""
    path = folder / TRIED
    return list(json.loads(path.read_text())["tried"]) if path.exists() else []


def fresh(settings: GenerateSettings) -> Gan | HubPggan | Resynthesis:
    """The networks of the settings, with fresh weights."""
    pl.seed_everything(settings.seed, verbose=False)
    return settings.gan.build(settings.dataset.image_size)


def train(
    settings: GenerateSettings,
    gan: Gan,
    folder: Path,
    resumed: Path | None,
    tried: list[dict[str, Any]],
) -> None:
    """Train a generator and save it as ``generator.safetensors``.

    Args:
        settings: the run's settings.
        gan: the generator and its critic, with fresh weights.
        folder: the run's folder.
        resumed: the checkpoint to resume from, or None.
        tried: seeds that gave no usable generator.
    """
    data, task, trainer = assemble_generator(settings, config.flat(settings), gan, folder)
    trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    if trainer.is_global_zero:
        steps = settings.max_epochs * settings.steps_per_epoch
        card = {
            **of_training(settings, trainer.strategy.root_device),
            "faces": len(data.source),
            "steps": steps,
            "images_shown": steps * gan.critic_steps * settings.batch_size,
            "tried_seeds": tried,
        }
        save_model(folder / runs.GENERATOR, gan, card)


def train_resynthesis(
    settings: GenerateSettings, model: Resynthesis, folder: Path, resumed: Path | None
) -> None:
    """Train autoencoders on the images to resynthesise, and save ``generator.safetensors``."""
    device = pick_device(settings.trainer)
    source, rows = originals(settings, model.per_image)
    about = {"settings": config.flat(settings), "images": rows_hash(source, np.arange(len(rows)))}
    errors = fit_autoencoders(model.to(device), rows, settings.seed, folder, about, resumed)
    decoders = [
        dataclasses.asdict(autoencoder.architecture) | {"error_grey_levels": error}
        for autoencoder, error in zip(model.autoencoders, errors, strict=True)
    ]
    card = {**of_training(settings, device), "faces": len(rows), "decoders": decoders}
    save_model(folder / runs.GENERATOR, model, card)


def originals(settings: GenerateSettings, per_image: int) -> tuple[Source, NDArray[np.uint8]]:
    """The source to resynthesise, and the rows of those of its images, the first ones, to use.

    Raises:
        UserError: if ``images`` asks for more images than can be made from it.
    """
    source = open_faces(settings.real, settings.dataset, Path(settings.cache_dir))
    count = -(-settings.images // per_image)
    range_ = f"be from 1 to {len(source) * per_image}, {per_image} of each image of {settings.real}"
    checks.require(1 <= count <= len(source), "images", settings.images, range_)
    return source, source.rows[:count]


def trained(folder: Path) -> tuple[Gan | Resynthesis, dict[str, Any], str]:
    """A run's trained generator, the metadata of its file, and the sha256 of its weights."""
    model, card, sha256 = load_model(folder / runs.GENERATOR, TRAINED, UPGRADES)
    return cast(Gan | Resynthesis, model), card, sha256


def of_settings(settings: GenerateSettings) -> dict[str, Any]:
    """Settings of a generator, for the metadata of its file."""
    return {
        "network": {
            "name": config.option(settings.generator),
            "settings": plain(settings)["generator"],
            "image_size": settings.dataset.image_size,
        }
    }


def of_training(settings: GenerateSettings, device: torch.device) -> dict[str, Any]:
    """`of_settings`, and how a generator was trained."""
    return {
        **of_settings(settings),
        "trained_on": settings.real,
        "toy": settings.real in DEMO_SOURCES,
        "training_seed": settings.seed,
        "training": runs.provenance(device),
    }


def sample(
    settings: GenerateSettings,
    generator: Gan | HubPggan | Resynthesis,
    card: Mapping[str, Any],
    sha256: str,
) -> dict[str, Any]:
    """Write images of a trained generator, and measure their quality.

    Args:
        settings: number of images, seed and output folder.
        generator: the generator.
        card: its metadata.
        sha256: sha256 of its weights.

    Returns:
        Content of the ``source.json`` beside the images.
    """
    name = card["network"]["name"]
    quick = settings.debug is Debug.quick
    folder = Path(settings.dataset.root) / f"{settings.source or name}{'_debug' if quick else ''}"
    made_by = {
        "generator": name,
        "generator_sha256": sha256,
        "seed": settings.seed,
    }
    started = time.monotonic()
    generator.to(pick_device(settings.trainer))
    made_from = {}
    if isinstance(generator, Resynthesis):
        per_image = generator.per_image
        source, rows = originals(settings, per_image)
        make = sampling.from_originals(generator, rows, settings.seed)
        made_by["made_from_source"] = settings.real
        made_from = {
            sampling.name_of(number): {
                "sha256": source.sha256[number // per_image],
                "decoder": generator.chosen(number, settings.seed)[0],
            }
            for number in range(settings.images)
        }
    else:
        make = sampling.from_latents(generator, settings.seed)
    with sampling.claimed(folder):
        sampling.write_samples(make, folder, settings.images, made_by)
        seconds = time.monotonic() - started
        faces = open_faces(settings.real, settings.dataset, Path(settings.cache_dir))
        log.info("measure the images")
        samples = np.stack(list(sampling.read_samples(folder, min(settings.images, COMPARED))))
        measured = quality(faces.rows[:], samples, settings.seed)
        content = {**card, **made_by, "images": settings.images, "quality": measured}
        content["debug"] = quick
        if made_from:
            content["made_from"] = made_from
        sampling.finish(folder, content)
    log.info("\n%s\n", quality_table(content))
    if measured["collapsed"]:
        log.warning(
            "The generator is unusable: %s Use another seed or train it longer.",
            measured["collapsed"],
        )
    log.info("%d images in %s, %.0f s", settings.images, runs.shown(folder), seconds)
    return content


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="generate")
def main(composed: DictConfig) -> None:
    """Check the settings, claim the run's folder, train, sample."""
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        settings = config.typed(composed, GenerateSettings)
        entry.refuse_devices_in_sweep(settings.trainer.all_devices)
        take_rank(settings.trainer)
        if settings.sample is not None:
            sample(settings, *trained(Path(settings.sample)))
            return
        resuming = settings.resume is not None
        if resuming:
            reached = settings.seed + len(read_tried(folder))
            settings = dataclasses.replace(settings, seed=reached)
        generator = fresh(settings)
        trains_once = not isinstance(generator, Gan)
        checks.require(not (trains_once and settings.retry_seeds), "retry_seeds",
                       settings.retry_seeds, "be 0 except for GANs trained here")  # fmt: skip
        if isinstance(generator, HubPggan):
            card = {**of_settings(settings), "trained_on": None, "toy": False}
            sample(settings, generator, card, checksum("", generator.state_dict()))
            return
        # Autoencoders are trained on the images that they resynthesise.
        also = ("images",) if isinstance(generator, Resynthesis) else ()
        flat = config.flat(settings)
        resumed = checkpoints.to_resume(folder, flat, also) if resuming else None
        with entry.claimed(folder, composed, resuming=resuming):
            if isinstance(generator, Resynthesis):
                train_resynthesis(settings, generator, folder, resumed)
                seeded = settings
            else:
                if not resuming:
                    (folder / TRIED).unlink(missing_ok=True)
                seeded = train_some(settings, generator, folder, resumed)
            if not runs.on_first_device():
                return
            quick = settings.debug is Debug.quick
            result: dict[str, Any] = {"settings": plain(seeded), "debug": quick}
            if settings.images:
                result["source"] = sample(seeded, *trained(folder))
            files.write_json(folder / runs.RESULT, result)
        if quick:
            log.warning(QUICK)
        log.info("Run folder: %s", runs.shown(folder))
        log.info("Curves, samples: tensorboard --logdir %s", runs.shown(folder).parent)

    entry.job(work)


def run() -> None:
    """Run the program with the command line of this process, and end the process."""
    entry.run(main, config.register)


if __name__ == "__main__":
    run()
