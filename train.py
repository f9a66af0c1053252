"""Train a detector on one generator's faces, test it on all of them, report.

``python train.py --help`` says what can be set.
"""

import dataclasses
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.loggers import TensorBoardLogger

from forensics import checkpoints, config, launch, runs, sweeps
from forensics.config import TrainSettings
from forensics.data.datamodule import FaceData
from forensics.data.images import POLICY_VERSION
from forensics.evaluation.audit import audit_run
from forensics.evaluation.examples import feature_space, mistakes
from forensics.evaluation.results import (
    calibrate,
    measure,
    part_columns,
    score_columns,
    scored_sources,
    training_spectra,
)
from forensics.evaluation.robustness import PERTURBATIONS, perturb
from forensics.evaluation.spectra import mean_log_power
from forensics.model_files import save_model
from forensics.reports.table import table_1
from forensics.reports.tensorboard import log_features, log_results
from forensics.scoring import Card
from forensics.task import DetectorTask, Scores
from forensics.trainer import assemble_detector

log = logging.getLogger(__name__)

config.register()

SPECTRUM_IMAGES = 256


def train(settings: TrainSettings, folder: Path, resumed: Path | None) -> None:
    """One run: fit, choose the checkpoint on validation, test once, write it all down.

    Args:
        settings: what to do.
        folder: the run's.
        resumed: the checkpoint to go on from, or None.
    """
    clock = [time.monotonic()]
    data, task, trainer = assemble_detector(settings, folder)
    audited = audit_run(data, settings.audit, settings.seed)
    for note in [*data.split.notes, *(audited["warnings"] if audited else [])]:
        log.warning(note)
    clock.append(time.monotonic())

    trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    clock.append(time.monotonic())

    best = checkpoints.load(folder / runs.CHECKPOINTS / checkpoints.BEST)
    task.load_state_dict(best["state_dict"])
    validation = score(trainer, task, data, "validation")
    test = score(trainer, task, data, "test")
    perturbed = perturbed_scores(trainer, task, data, settings)
    clock.append(time.monotonic())
    if not trainer.is_global_zero:
        return

    columns = score_columns(data, validation, test)
    thresholds, temperature = calibrate(data, validation)
    sources, pairs = measure(scored_sources(data, test), thresholds, temperature, settings.seed)
    prepare, fit, testing = np.diff(clock).round(2).tolist()
    result = {
        "toy": settings.dataset.toy,
        "model": config.option(settings.model),
        "preprocess": config.option(settings.preprocess),
        "settings": config.plain(settings),
        "epoch": best["epoch"] + 1,
        "thresholds": thresholds,
        "temperature": temperature,
        "sources": sources,
        "pairs": pairs,
        "test_hashes": data.test_hashes(),
        "images": {
            part: {
                source.name: getattr(data.split, part).count(position)
                for position, source in enumerate(data.sources)
            }
            for part in ("train", "validation", "test")
        },
        "dropped_from_training": data.split.dropped,
        "rejected_files": {source.name: len(source.rejected) for source in data.sources},
        "audit": audited,
        "warnings": data.split.notes,
        "seconds": {"prepare": prepare, "fit": fit, "score": testing},
        **runs.provenance(trainer.strategy.root_device),
    }
    card = detector_card(settings, result, data)
    save_model(folder / runs.DETECTOR, task.detector, dataclasses.asdict(card))
    runs.write_columns(folder / runs.SCORES, columns)
    if settings.perturb:
        runs.write_columns(folder / runs.PERTURBED, perturbed)
    for source, sheet in mistakes(data, test).items():
        runs.write_image(folder / runs.MISTAKES / f"{source}.png", sheet)
    shown_images, features = feature_space(data, task.detector, settings.seed)
    runs.write_columns(folder / runs.FEATURES, features)
    spectra = {
        source.name: mean_log_power(
            source.rows[data.split.test.row[data.split.test.source == position][:SPECTRUM_IMAGES]]
        )
        for position, source in enumerate(data.sources)
    }
    logger = cast(TensorBoardLogger, trainer.logger)
    log_results(logger, result, columns, spectra, trainer.global_step)
    log_features(logger, features, shown_images, trainer.global_step)
    logger.finalize("success")
    runs.write_json(folder / runs.RESULT, result)

    shown = runs.shown(folder)
    log.info("\n%s\n", table_1(result))
    if settings.dataset.toy:
        log.info("Toy data: rendered faces, whose figures say nothing about real GANs.")
    log.info("Run folder: %s", shown)
    log.info("Curves:     tensorboard --logdir %s", shown.parent)


def score(trainer: pl.Trainer, task: DetectorTask, data: FaceData, part: str) -> Scores:
    """Score the validation or the test part with the task's present weights."""
    run = trainer.validate if part == "validation" else trainer.test
    run(task, datamodule=data, verbose=False)
    return task.scores


def perturbed_scores(
    trainer: pl.Trainer, task: DetectorTask, data: FaceData, settings: TrainSettings
) -> dict[str, list[Any]]:
    """Test again under each perturbation asked for: columns of ``perturbed.parquet``."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for name in settings.perturb:
        for strength in PERTURBATIONS[name].strengths:
            log.info("test under %s %g", name, strength)
            dataset = settings.dataset
            data.perturb = perturb(
                name, strength, settings.seed, dataset.match, dataset.resize_filter
            )
            scores = part_columns(data, "test", score(trainer, task, data, "test"))
            for column, values in scores.items():
                columns[column] += values
            columns["perturbation"] += [name] * len(scores["logit"])
            columns["strength"] += [strength] * len(scores["logit"])
    data.perturb = None
    return columns


def detector_card(settings: TrainSettings, result: dict[str, Any], data: FaceData) -> Card:
    """What someone who scores with the detector has to know of it."""
    plain = config.plain(settings)
    spectra, spectrum_limit = training_spectra(data)
    return Card(
        model=result["model"],
        model_settings=plain["model"],
        image_size=settings.dataset.image_size,
        resize_filter=plain["dataset"]["resize_filter"],
        match=plain["dataset"]["match"],
        decode_policy=POLICY_VERSION,
        precision=settings.trainer.precision,
        thresholds=result["thresholds"],
        temperature=result["temperature"],
        spectra=spectra,
        spectrum_limit=spectrum_limit,
        real=settings.dataset.real,
        trained_on=settings.dataset.train_on,
        preprocess=result["preprocess"],
        toy=settings.dataset.toy,
        version=result["versions"]["forensics"],
        git_commit=result["git_commit"],
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(composed: DictConfig) -> None:
    """Check the settings, claim the run's folder, train."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)

    def work() -> None:
        settings = config.typed(composed, TrainSettings)
        launch.refuse_devices_in_sweep(settings.trainer.devices)
        if sweeps.is_done(folder, config.flat(settings)):
            return
        going_on = settings.resume is not None or sweeps.was_stopped(folder)
        resumed = checkpoints.to_resume(folder, config.flat(settings)) if going_on else None
        if runs.on_first_device():
            runs.begin(folder, hydra_config, composed, going_on=going_on)
        with launch.claimed(folder):
            train(settings, folder, resumed)

    launch.job(work)


if __name__ == "__main__":
    launch.run(main, sweeps.report)
