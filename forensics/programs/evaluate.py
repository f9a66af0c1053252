"""Test trained detectors on other sources, with the thresholds from their own validation images.

``python evaluate.py --help`` lists the settings.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from forensics import config, files, runs
from forensics.checks import plain
from forensics.data.opening import open_sources
from forensics.data.sources import Needed, Preparation, Source, rows_hash
from forensics.data.splits import Part
from forensics.detectors.card import Calibration, Input
from forensics.errors import UserError
from forensics.evaluation.metrics import at_threshold, oracle_threshold, reliability
from forensics.evaluation.results import (
    SourceScores,
    by_source,
    measure,
    perturbed_columns,
    score_columns,
    score_part,
    score_perturbed,
)
from forensics.evaluation.settings import EvaluateSettings
from forensics.images.geometry import Match, ResizeFilter, View
from forensics.launch import entry
from forensics.programs import CONF
from forensics.reports import figures
from forensics.reports.evaluation import evaluation_table, write_tables
from forensics.scoring import Predictor

log = logging.getLogger(__name__)

DETECTORS_OWN = ("image_size", "view", "crop_size", "resize_filter", "match", "min_side")
"""Settings of a data set in whose place a detector's own are used."""

OF_TRAINING = ("train_on", "train_count", "validation_share", "drop_near_duplicates", "split",
               "listed", "group")  # fmt: skip
"""Settings of a data set that a test has no use for."""


def evaluate(settings: EvaluateSettings, folder: Path) -> None:
    """Test every detector on every source and write the results.

    Args:
        settings: the evaluation's settings.
        folder: the output folder.
    """
    predictors = [Predictor.load(path) for path in settings.detectors]  # all before the first test
    tested = []
    for number, (path, predictor) in enumerate(zip(settings.detectors, predictors, strict=True)):
        tested.append(test_detector(settings, path, predictor, folder, number))
        draw(folder, number, tested[-1])
    files.write_json(
        folder / runs.EVALUATION,
        {
            "settings": plain(settings),
            "detectors": tested,
            **runs.provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        },
    )
    write_tables(tested, folder)
    log.info("\n%s\n", evaluation_table(tested))
    log.info("Written to %s", runs.shown(folder))


def test_detector(
    settings: EvaluateSettings, path: str, predictor: Predictor, folder: Path, number: int
) -> dict[str, Any]:
    """Test one detector, write its scores, and return its results."""
    card, scorer, real = predictor.card, predictor.scorer, settings.dataset.real
    known = {*card.provenance.real, *card.provenance.trained_on}
    sources, part = open_tested(settings, card.input)
    for source in sources:
        if source.name in known:
            log.warning(
                "%s was trained on %s: results are valid only for images that were not used in its "
                "training.",
                path,
                source.name,
            )
    if card.input.match == Match.codec:
        log.warning(
            "%s was trained with dataset.match=codec: images to be scored have no real source of "
            "their own, and are scored as they are.",
            path,
        )
    scores = score_part(scorer, sources, part, f"test {path}")
    match, filter_ = Match(card.input.match), ResizeFilter(card.input.resize_filter)
    perturbed = score_perturbed(
        scorer, sources, part, "test", settings.perturb, settings.seed, match, filter_
    )
    columns = score_columns(sources, real, "test", part, scores)
    files.write_columns(folder / runs.evaluated(runs.SCORES, number), columns)
    if perturbed:
        columns = perturbed_columns(sources, real, part, perturbed)
        files.write_columns(folder / runs.evaluated(runs.PERTURBED, number), columns)

    def measured_of(scores: NDArray[np.floating]) -> dict[str, Any]:
        scored = by_source(sources, real, known, part, scores)
        return measured(scored, card.calibration, settings.seed, settings.dataset.compared)

    return {
        "detector": path,
        "sha256": predictor.sha256,
        **card.to_file(),
        "left_out": {source.name: dict(source.left_out()) for source in sources},
        "scores_sha256": files.sha256_of(folder / runs.evaluated(runs.SCORES, number)),
        "test_hashes": {
            source.name: rows_hash(source, part.of_source(position))
            for position, source in enumerate(sources)
        },
        **measured_of(scores),
        "perturbed": [
            {"perturbation": name, "strength": strength} | measured_of(of_strength)
            for (name, strength), of_strength in perturbed.items()
        ],
    }


def open_tested(settings: EvaluateSettings, input_: Input) -> tuple[list[Source], Part]:
    """The sources, prepared as the detector's input, and their test images.

    Raises:
        UserError: as `open_sources`, and if no image is as large as the detector's input.
    """
    dataset = settings.dataset
    preparation = Preparation(
        input_.side,
        ResizeFilter(input_.resize_filter),
        input_.side,
        dataset.max_rejected_share,
        Match(input_.match),
        View(input_.view),
        may_be_small=True,
    )
    folders = {name: dataset.folder(name) for name in (*dataset.real, *dataset.generators)}
    wanted = dataset.test_count
    needed = None if wanted is None else dict.fromkeys(folders, Needed(0, wanted))
    cache_dir = settings.cache_dir
    sources = open_sources(folders, preparation, cache_dir, needed, dataset.below)
    counts = [len(source) if wanted is None else min(wanted, len(source)) for source in sources]
    if not any(counts):
        raise UserError(
            f"No image has the {input_.side} pixels a side of the detector's input: name larger "
            "images, or a detector of smaller ones.",
            key="dataset.root",
        )
    generated = counts[len(dataset.real) :]
    if generated and wanted is not None:  # as in training: the real class must not dominate
        reals = range(len(dataset.real))
        counts[: len(reals)] = [min(counts[position], max(generated)) for position in reals]
    return sources, Part.of(
        [
            np.arange(len(source) - count, len(source))
            for source, count in zip(sources, counts, strict=True)
        ]
    )


def measured(
    scored: list[SourceScores],
    calibration: Calibration,
    seed: int,
    compared: Mapping[str, Collection[str]],
) -> dict[str, Any]:
    """All metrics, also at the oracle's threshold of each pair, and reliability."""
    sources, pairs = measure(scored, calibration, seed, compared)
    scores = {source.name: source.scores for source in scored}
    for pair in pairs:
        of_pair = scores[pair["real"]], scores[pair["generator"]]
        threshold = oracle_threshold(*of_pair)
        pair["oracle_threshold"] = threshold
        pair["at_oracle"] = at_threshold(*of_pair, threshold)
        if calibration.temperature is not None:
            offset, temperature = calibration.offset or 0.0, calibration.temperature
            reals, generated = (
                (of_class.astype(np.float64) - offset) / temperature for of_class in of_pair
            )
            pair["reliability"] = reliability(reals, generated)
    return {"sources": sources, "pairs": pairs}


def draw(folder: Path, number: int, result: dict[str, Any]) -> None:
    """Draw the reliability and robustness figures of a detector's result."""
    curves = {
        f"{pair['real']} + {pair['generator']}": pair["reliability"]
        for pair in result["pairs"]
        if "reliability" in pair
    }
    if curves:
        figures.reliability(curves).savefig(folder / f"reliability_{number}.png", dpi=120)
    if result["perturbed"]:
        figures.rates_under_perturbation(result).savefig(
            folder / f"robustness_{number}.png", dpi=120
        )


def refuse_unused(overrides: Sequence[str]) -> None:
    """Refuse settings of the command line that a test does not use."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].removeprefix("dataset.")
        if key in DETECTORS_OWN:
            why = "is the detector's own, since it is tested on images prepared as in its training"
        elif key in OF_TRAINING:
            why = "applies to training only, and the last dataset.test_count images are tested"
        else:
            continue
        raise UserError(f"dataset.{key} {why}: leave it out.", key=f"dataset.{key}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Check the settings and the folder, then evaluate."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = HydraConfig.get().overrides.task

    def work() -> None:
        refuse_unused(overrides)
        settings = config.typed(composed, EvaluateSettings)
        with runs.claimed(folder, HydraConfig.get(), composed, resuming=False):
            evaluate(settings, folder)

    entry.job(work)


def run() -> None:
    """Run the program with the command line of this process, and end the process."""
    entry.run(main, config.register)


if __name__ == "__main__":
    run()
