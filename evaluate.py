"""Test trained detectors on other sources, with the thresholds they were trained to.

``python evaluate.py --help`` says what can be set.
"""

import dataclasses
import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from forensics import config, launch, runs
from forensics.config import EvaluateSettings
from forensics.data.images import Match, ResizeFilter
from forensics.data.sources import Preparation, Source, in_order, open_source
from forensics.errors import UserError
from forensics.evaluation.metrics import at_threshold, oracle_threshold, reliability
from forensics.evaluation.results import Scored, measure
from forensics.evaluation.robustness import PERTURBATIONS, Pixels, perturb
from forensics.progress import Progress
from forensics.reports import figures
from forensics.reports.table import evaluation_table
from forensics.scoring import BATCH_SIZE, Detector

log = logging.getLogger(__name__)

config.register()

EVALUATION = "evaluation.json"


def evaluate(settings: EvaluateSettings, folder: Path) -> None:
    """Test every detector on every source and write down how it does.

    Args:
        settings: what to do.
        folder: where to write.
    """
    detectors = [Detector.load(path) for path in settings.detectors]  # all, before any takes long
    tested = []
    for number, (path, detector) in enumerate(zip(settings.detectors, detectors, strict=True)):
        sources, rows = open_tested(settings, detector)
        scored = score(settings, detector, sources, rows, f"test {path}", lambda image, _: image)
        runs.write_columns(folder / f"scores_{number}.parquet", columns(sources, rows, scored))
        result = {
            "detector": path,
            "sha256": detector.sha256,
            **dataclasses.asdict(detector.card),
            **measured(settings, detector, scored),
            "perturbed": [
                {"perturbation": name, "strength": strength}
                | measured(
                    settings,
                    detector,
                    score(
                        settings,
                        detector,
                        sources,
                        rows,
                        f"{name} {strength:g}, {path}",
                        perturb(
                            name,
                            strength,
                            settings.seed,
                            Match(detector.card.match),
                            ResizeFilter(detector.card.resize_filter),
                        ),
                    ),
                )
                for name in settings.perturb
                for strength in PERTURBATIONS[name].strengths
            ],
        }
        tested.append(result)
        known = {*detector.card.real, *detector.card.trained_on}
        for source in sources:
            if source.name in known:
                log.warning(
                    "%s was trained on %s: only images after those that trained tell how it does "
                    "on others of it.",
                    path,
                    source.name,
                )
        draw(folder, number, result)

    runs.write_json(
        folder / EVALUATION,
        {
            "settings": config.plain(settings),
            "detectors": tested,
            **runs.provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        },
    )
    log.info("\n%s\n", evaluation_table(tested))
    log.info("Written to %s", runs.shown(folder))


def open_tested(
    settings: EvaluateSettings, detector: Detector
) -> tuple[list[Source], list[NDArray[np.int64]]]:
    """The sources as the detector sees images, and the rows of each that are tested."""
    dataset, card = settings.dataset, detector.card
    preparation = Preparation(
        card.image_size,
        ResizeFilter(card.resize_filter),
        card.image_size,
        dataset.max_rejected_share,
        Match(card.match),
    )
    sources = [
        open_source(name, dataset.folder(name), preparation, Path(settings.cache_dir))
        for name in (*dataset.real, *dataset.generators)
    ]
    counts = [min(dataset.test_count, len(source)) for source in sources]
    generated = counts[len(dataset.real) :]
    if generated:  # as in training: an accuracy shall not be the larger class's rate
        reals = range(len(dataset.real))
        counts[: len(reals)] = [min(counts[position], max(generated)) for position in reals]
    return sources, [
        np.arange(len(source) - count, len(source))
        for source, count in zip(sources, counts, strict=True)
    ]


def score(
    settings: EvaluateSettings,
    detector: Detector,
    sources: list[Source],
    rows: list[NDArray[np.int64]],
    label: str,
    change: Callable[[Pixels, int], Pixels],
) -> list[Scored]:
    """Score the tested rows after a change that is a function of image and position."""
    scored = []
    known = {*detector.card.real, *detector.card.trained_on}
    with Progress(label, sum(map(len, rows))) as progress:
        for source, chosen in zip(sources, rows, strict=True):

            def changed(row: int, source: Source = source) -> Pixels:
                return change(source.rows[row], row)

            images = in_order(changed, chosen.tolist(), 4 * BATCH_SIZE)
            logits = []
            while batch := list(islice(images, BATCH_SIZE)):
                logits.append(detector.logits(np.stack(batch)))
                progress.advance(len(batch))
            source.forget_pages()
            of_source = np.concatenate(logits)
            if not np.isfinite(of_source).all():
                raise UserError(
                    f"{source.name} has images whose score is no finite number: train the "
                    "detector again with a lower learning_rate."
                )
            real = source.name in settings.dataset.real
            scored.append(Scored(source.name, real, source.name in known, of_source))
    return scored


def measured(
    settings: EvaluateSettings, detector: Detector, scored: list[Scored]
) -> dict[str, Any]:
    """All metrics, those at the oracle's threshold of each pair, and reliability."""
    card = detector.card
    sources, pairs = measure(scored, card.thresholds, card.temperature, settings.seed)
    logits = {source.name: source.logits for source in scored}
    for pair in pairs:
        of_pair = logits[pair["real"]], logits[pair["generator"]]
        threshold = oracle_threshold(*of_pair)
        pair["oracle_threshold"] = threshold
        pair["at_oracle"] = at_threshold(*of_pair, threshold)
        reals, generated = (one.astype(np.float64) / card.temperature for one in of_pair)
        pair["reliability"] = reliability(reals, generated)
    return {"sources": sources, "pairs": pairs}


def columns(
    sources: list[Source], rows: list[NDArray[np.int64]], scored: list[Scored]
) -> dict[str, Any]:
    """Scores as `forensics.runs.write_columns` takes them."""
    counts = [len(chosen) for chosen in rows]
    return {
        "source": np.repeat([source.name for source in sources], counts).tolist(),
        "path": [s.paths[row] for s, chosen in zip(sources, rows, strict=True) for row in chosen],
        "split": ["test"] * sum(counts),
        "label": np.repeat([int(one.real) for one in scored], counts).tolist(),
        "logit": np.concatenate([one.logits for one in scored]),
    }


def draw(folder: Path, number: int, result: dict[str, Any]) -> None:
    """Draw what a detector's result has figures for."""
    if result["pairs"]:
        curves = {f"{p['real']} + {p['generator']}": p["reliability"] for p in result["pairs"]}
        figures.reliability(curves).savefig(folder / f"reliability_{number}.png", dpi=120)
    if result["perturbed"]:
        figures.robustness(result).savefig(folder / f"robustness_{number}.png", dpi=120)


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Check the settings and the folder, then evaluate."""
    folder = Path(HydraConfig.get().runtime.output_dir)

    def work() -> None:
        settings = config.typed(composed, EvaluateSettings)
        if (folder / EVALUATION).exists():
            raise UserError(
                f"{runs.shown(folder)} holds a whole evaluation: choose another folder with "
                "name=NAME, or remove it."
            )
        evaluate(settings, folder)

    launch.job(work)


if __name__ == "__main__":
    launch.run(main)
