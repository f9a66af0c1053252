"""Train a detector on one generator's faces, test it on every generator, report.

``python train.py --help`` lists the settings.
"""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from forensics import config, files, runs
from forensics.checks import plain
from forensics.data.datamodule import FaceData
from forensics.detectors import Detector, plugins
from forensics.detectors.card import Calibration, DetectorCard, Input, Provenance
from forensics.evaluation.audit import audit_run
from forensics.evaluation.examples import feature_space, mistakes
from forensics.evaluation.results import (
    against_chance,
    by_source,
    calibrate,
    largest_changes,
    measure,
    perturbed_columns,
    rates,
    score_columns,
    score_part,
    score_perturbed,
    training_spectra,
)
from forensics.evaluation.summary import summarise
from forensics.evaluation.watch import Watch
from forensics.images.decode import POLICY_VERSION
from forensics.images.spectra import mean_log_power
from forensics.launch import entry, sweeps
from forensics.model_files import save_model
from forensics.programs import CONF
from forensics.reports.report import write_report
from forensics.reports.tables import chance_line, findings, findings_table, table_1, wrapped
from forensics.reports.tensorboard import log_features, log_results
from forensics.scoring.scorer import Scorer
from forensics.training import checkpoints
from forensics.training.loggers import validation_loss
from forensics.training.settings import QUICK, Debug, TrainSettings
from forensics.training.trainer import assemble_detector, take_rank

log = logging.getLogger(__name__)

SPECTRUM_IMAGES = 256
AUDIT_FOUND = (
    "The audit found what separates the classes without a detector, or repeats: scores may show "
    "these shortcuts rather than the traces of generators."
)
BEST_OF = {name: {"min": "lowest", "max": "highest"}[mode]
           for name, mode in checkpoints.MONITORS.items()}  # fmt: skip


def train(settings: TrainSettings, folder: Path, resumed: Path | None) -> None:
    """One run: fit, choose the checkpoint on validation images, test once, write the output files.

    Args:
        settings: the run's settings.
        folder: the run's folder.
        resumed: the checkpoint to resume from, or None.
    """
    clock = [time.monotonic()]
    watch = [Watch(settings.watch, settings.trainer.precision)] if settings.watch else []
    data, task, trainer = assemble_detector(settings, config.flat(settings), folder, *watch)
    audited = audit_run(data, settings.audit, settings.seed)
    for note in data.split.notes:
        log.warning(note)
    say_findings(findings(audited, settings.dataset.match) if audited else {})
    clock.append(time.monotonic())

    trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    clock.append(time.monotonic())

    if not trainer.is_global_zero:
        return
    kept = checkpoints.BEST if task.detector.optimizer() else checkpoints.LAST
    best = checkpoints.load(folder / runs.CHECKPOINTS / kept)
    task.load_state_dict(best["state_dict"])
    say_kept(settings, best["epoch"] + 1, chosen=kept == checkpoints.BEST)
    dataset, split = settings.dataset, data.split
    scorer = Scorer(
        task.detector,
        settings.trainer.precision,
        trainer.strategy.root_device,
        dataset.image_size,
    )
    validation = score_part(scorer, data.sources, split.validation, "validation")
    test = score_part(scorer, data.sources, split.test, "test")
    validation_perturbed, perturbed = (
        score_perturbed(scorer, data.sources, part, label, settings.perturb, settings.seed,
                        dataset.match, dataset.resize_filter)
        for label, part in (("validation", split.validation), ("test", split.test))
    )  # fmt: skip
    clock.append(time.monotonic())

    is_real = split.validation.source < len(dataset.all_real)
    reals, generated = validation[is_real], validation[~is_real]
    calibration = dataclasses.replace(
        calibrate(reals, generated, centred=task.detector.is_probabilistic),
        largest_changes=largest_changes(
            scorer, data.sources, split.validation, validation, dataset.match
        ),
    )
    earlier = [card.provenance for card in task.detector.made_from]
    seen = {*dataset.real, *dataset.train_on}.union(*((*p.real, *p.trained_on) for p in earlier))

    def of_validation(scores: NDArray[np.floating]) -> dict[str, Any]:
        scored = by_source(data.sources, dataset.all_real, seen, split.validation, scores)
        return rates(scored, calibration.thresholds)

    scored = by_source(data.sources, dataset.all_real, seen, split.test, test)
    sources, pairs = measure(scored, calibration, settings.seed, dataset.compared)
    prepare, fit, testing = np.diff(clock).round(2).tolist()
    result = {
        "toy": settings.dataset.toy,
        "debug": settings.debug is Debug.quick,
        "model": config.option(settings.model),
        "preprocess": config.option(settings.preprocess),
        "settings": plain(settings),
        "made_from": [dataclasses.asdict(provenance) for provenance in earlier],
        "epoch": best["epoch"] + 1,
        **dataclasses.asdict(calibration),
        "validation": {"loss": validation_loss(folder, best["epoch"] + 1)}
        | against_chance(reals, generated)
        | of_validation(validation)
        | {
            "perturbed": [
                {"perturbation": name, "strength": strength} | of_validation(scores)
                for (name, strength), scores in validation_perturbed.items()
            ]
        },
        "sources": sources,
        "pairs": pairs,
        "summary": summarise(pairs, list(calibration.thresholds)),
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
        "groups": data.split.groups,
        "warnings": data.split.notes,
        "seconds": {"prepare": prepare, "fit": fit, "score": testing},
        **runs.provenance(trainer.strategy.root_device),
    }
    card = detector_card(settings, result, calibration, data, task.detector)
    save_model(folder / runs.DETECTOR, task.detector, card.to_file())
    real = dataset.all_real
    columns = score_columns(data.sources, real, "validation", split.validation, validation)
    tested = score_columns(data.sources, real, "test", split.test, test)
    columns = {name: columns[name] + tested[name] for name in columns}
    files.write_columns(folder / runs.SCORES, columns)
    result["scores_sha256"] = files.sha256_of(folder / runs.SCORES)
    if settings.perturb:
        again = perturbed_columns(data.sources, real, split.test, perturbed)
        files.write_columns(folder / runs.PERTURBED, again)
    for source, sheet in mistakes(data, test).items():
        files.write_image(folder / runs.MISTAKES / f"{source}.png", sheet)
    featured = feature_space(data, scorer, settings.seed)
    if featured is not None:
        files.write_columns(folder / runs.FEATURES, featured[1])
    spectra = {
        data.sources[position].name: mean_log_power(
            data.sources[position].rows[split.test.of_source(position)[:SPECTRUM_IMAGES]]
        )
        for position in np.unique(split.test.source)
    }
    log_results(trainer.loggers, result, columns, spectra, trainer.global_step)
    if featured is not None:
        log_features(trainer.loggers[0], featured[1], featured[0], trainer.global_step)
    for logger in trainer.loggers:
        logger.finalize("success")
    files.write_json(folder / runs.RESULT, result)

    shown = runs.shown(folder)
    log.info("\n%s\n", table_1(result))
    if no_better := chance_line(result):
        log.warning(wrapped(no_better))
    if settings.dataset.toy:
        log.info("Toy data: rendered faces, whose figures say nothing about real GANs.")
    if result["debug"]:
        log.warning(wrapped(QUICK))
    log.info("Run folder: %s", shown)
    log.info("Curves:     tensorboard --logdir %s", shown.parent)


def say_findings(found: dict[str, list[str]]) -> None:
    """Log the audit's findings, in a sweep those that no complete job has had."""
    for earlier in sweeps.results():
        if earlier["audit"]:
            before = findings(earlier["audit"], earlier["settings"]["dataset"]["match"])
            found = {what: cells for what, cells in found.items() if what not in before}
    if found:
        log.warning(wrapped(AUDIT_FOUND))
        log.warning("%s\n", findings_table(found))


def say_kept(settings: TrainSettings, epoch: int, *, chosen: bool) -> None:
    """Log which epoch is tested, and why."""
    why = f"the {BEST_OF[settings.monitor]} {settings.monitor}" if chosen else "the last"
    log.info("kept: epoch %d, %s", epoch, why)


def detector_card(
    settings: TrainSettings,
    result: dict[str, Any],
    calibration: Calibration,
    data: FaceData,
    detector: Detector,
) -> DetectorCard:
    """The metadata of the detector file; its sources include those of earlier training."""
    values = plain(settings)
    dataset = settings.dataset
    return DetectorCard(
        result["model"],
        values["model"] | detector.file_settings(),
        plugins.PLUGINS.get(result["model"]),
        Input(
            dataset.image_size,
            values["dataset"]["resize_filter"],
            values["dataset"]["match"],
            POLICY_VERSION,
            str(settings.trainer.precision),
            values["dataset"]["view"],
            dataset.crop_size,
        ),
        calibration,
        training_spectra(data),
        Provenance(
            _united(dataset.real, *(card.provenance.real for card in detector.made_from)),
            _united(dataset.train_on, *(card.provenance.trained_on for card in detector.made_from)),
            result["preprocess"],
            dataset.toy,
            settings.seed,
            result["versions"]["forensics"],
            result["git_commit"],
        ),
    )


def _united(*names: list[str]) -> list[str]:
    return list(dict.fromkeys(name for some in names for name in some))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(composed: DictConfig) -> None:
    """Check the settings, claim the run's folder, train."""
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        settings = config.typed(composed, TrainSettings)
        entry.refuse_devices_in_sweep(settings.trainer.all_devices)
        take_rank(settings.trainer)
        if sweeps.is_done(folder, config.flat(settings)):
            return
        sweeps.announce()
        resuming = settings.resume is not None or sweeps.was_stopped(folder)
        resumed = checkpoints.to_resume(folder, config.flat(settings)) if resuming else None
        with entry.claimed(folder, composed, resuming=resuming):
            train(settings, folder, resumed)

    entry.job(work)


def report_on_sweep() -> None:
    """Report on the sweep of this process, even if jobs failed; does nothing after a single run."""
    folder = sweeps.ended()
    if folder is not None:
        write_report([folder], folder)


def run() -> None:
    """Run the program with the command line of this process, and end the process."""
    entry.run(main, config.register, report_on_sweep)


if __name__ == "__main__":
    run()
