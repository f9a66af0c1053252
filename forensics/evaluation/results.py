"""Scores, thresholds and metrics of a run, in the form of ``result.json``."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from forensics.data.datamodule import FaceData
from forensics.data.sources import Source
from forensics.data.splits import Part
from forensics.detectors.card import Calibration, SpectrumGuard
from forensics.errors import UserError
from forensics.evaluation.calibration import (
    FALSE_POSITIVE_RATES,
    fit_platt,
    fit_temperature,
    source_threshold,
)
from forensics.evaluation.intervals import auroc_interval
from forensics.evaluation.metrics import at_threshold, ranking, ranking_values, undefined
from forensics.images.geometry import Match, ResizeFilter
from forensics.images.perturbations import MILD_CHANGES, MildChange, chosen, perturb
from forensics.images.spectra import nearest, profiles
from forensics.scoring.scorer import Scorer

PROFILED_IMAGES = 1000
"""Maximum number of images of a source: with more, mean and standard deviation hardly change."""
UNLIKE_SHARE = 0.01
"""Share of the validation images whose spectra count as unlike those of the training images."""

IMAGES_FOR_CHANGES = 100
"""Number of validation images from which on their largest changes say anything about others."""

Change = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""Maps an image, ``(S, S, 3)``, and its row in its source to an image."""


class SourceScores(NamedTuple):
    """Scores of the validation or test images of one source.

    Attributes:
        name: the source's name.
        real: whether its images are real.
        seen: whether the detector was trained on the source.
        scores: ``(n,)`` finite, one per image.
    """

    name: str
    real: bool
    seen: bool
    scores: NDArray[np.floating]


def score_part(
    scorer: Scorer,
    sources: Sequence[Source],
    part: Part,
    label: str,
    change: Change = lambda image, row: image,
) -> NDArray[np.float32]:
    """Score the images of one part.

    Args:
        scorer: the detector.
        sources: the sources of ``part``.
        part: the images to score.
        label: label of the progress bar.
        change: applied to each image before scoring.

    Returns:
        ``(n,)``, in the order of ``part``.

    Raises:
        UserError: if a score is not finite; it names the images.
    """

    def image(position: int) -> NDArray[np.uint8]:
        row = int(part.row[position])
        return change(sources[part.source[position]].rows[row], row)

    scores = scorer.scores(len(part), image, label=label)
    for source in sources:
        source.forget_pages()
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        owners = ((sources[part.source[i]], part.row[i]) for i in broken[:5])
        first = ", ".join(f"{source.name}/{source.paths[row]}" for source, row in owners)
        raise UserError(
            f"{len(broken)} images got a score that is not a finite number, the first {first}: "
            "train again with a lower model.learning_rate.",
            key="model.learning_rate",
        )
    return scores


def score_perturbed(
    scorer: Scorer,
    sources: Sequence[Source],
    part: Part,
    label: str,
    perturbations: Sequence[str],
    seed: int,
    match: Match,
    filter_: ResizeFilter,
) -> dict[tuple[str, float], NDArray[np.float32]]:
    """Score the images of one part under each perturbation, at each of its strengths.

    Args:
        scorer: the detector.
        sources: the sources of ``part``.
        part: the images to score.
        label: label of the progress bar.
        perturbations: entries of `forensics.images.perturbations.chosen`.
        seed: seed of the perturbations' random draws.
        match: the processing of all images, repeated after the perturbation.
        filter_: resize filter of ``match``.

    Returns:
        Scores as of `score_part`, by perturbation and strength.
    """
    return {
        (name, strength): score_part(
            scorer,
            sources,
            part,
            f"{label}, {name} {strength:g}",
            perturb(name, strength, seed, match, filter_),
        )
        for name, strength in chosen(perturbations)
    }


def largest_changes(
    scorer: Scorer,
    sources: Sequence[Source],
    part: Part,
    scores: NDArray[np.floating],
    match: Match,
) -> dict[str, float] | None:
    """The largest absolute change of a score by each of `MILD_CHANGES`.

    Args:
        scorer: the detector.
        sources: the sources of ``part``.
        part: the validation images.
        scores: their scores, in the order of ``part``.
        match: the processing of all images.

    Returns:
        The largest changes by name. None for fewer images than `IMAGES_FOR_CHANGES`, and if images
        are matched, since the changes of an image that is scored come before matching.
    """
    if len(part) < IMAGES_FOR_CHANGES or match is not Match.none:
        return None
    largest = {}
    for name, change in MILD_CHANGES.items():

        def changed(
            image: NDArray[np.uint8], row: int, change: MildChange = change
        ) -> NDArray[np.uint8]:
            return change(image)

        of_changed = score_part(scorer, sources, part, f"validation, {name}", changed)
        largest[name] = float(np.abs(of_changed - scores).max())
    return largest


def perturbed_columns(
    sources: Sequence[Source], real: Collection[str], part: Part,
    scores: Mapping[tuple[str, float], NDArray[np.floating]],
) -> dict[str, list[Any]]:  # fmt: skip
    """The scores of `score_perturbed` as columns: `score_columns`, perturbation and strength."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for (name, strength), of_strength in scores.items():
        tested = score_columns(sources, real, "test", part, of_strength)
        tested |= {"perturbation": [name] * len(part), "strength": [strength] * len(part)}
        for column, values in tested.items():
            columns[column] += values
    return columns


def score_columns(
    sources: Sequence[Source], real: Collection[str], split: str, part: Part,
    scores: NDArray[np.floating],
) -> dict[str, list[Any]]:  # fmt: skip
    """Scores as columns source, path, split, label and logit.

    Args:
        sources: the sources of ``part``.
        real: names of the real sources.
        split: the part's name.
        part: the scored images.
        scores: their scores, in the order of ``part``.
    """
    owners = [sources[position] for position in part.source]
    return {
        "source": [source.name for source in owners],
        "path": [source.paths[row] for source, row in zip(owners, part.row, strict=True)],
        "split": [split] * len(part),
        "label": [int(source.name in real) for source in owners],
        "logit": scores.tolist(),
    }


def by_source(
    sources: Sequence[Source], real: Collection[str], seen: Collection[str], part: Part,
    scores: NDArray[np.floating],
) -> list[SourceScores]:  # fmt: skip
    """The scores of a part by source, without empty sources; arguments as in `score_columns`."""
    return [
        SourceScores(sources[position].name, sources[position].name in real,
                     sources[position].name in seen, scores[part.source == position])
        for position in np.unique(part.source)
    ]  # fmt: skip


def calibrate(
    real_scores: NDArray[np.floating], generated_scores: NDArray[np.floating], *, centred: bool
) -> Calibration:
    """Fit thresholds and probabilities to the scores of validation images.

    Args:
        real_scores: ``(n,)`` scores of real validation images.
        generated_scores: ``(m,)`` scores of generated validation images; if empty, there are no
            probabilities.
        centred: whether the scores are logits, whose offset is 0.

    Returns:
        The calibration, with thresholds by name: ``0.5``, the score of probability 0.5, if there
        are probabilities, and ``source_<false-positive rate on validation real images>``.
    """
    thresholds = {
        f"source_{rate}": source_threshold(real_scores, rate) for rate in FALSE_POSITIVE_RATES
    }
    mean, std = float(real_scores.mean(dtype=float)), float(real_scores.std(dtype=float))
    if not len(generated_scores):
        return Calibration(thresholds, None, None, mean, std, None)
    offset, temperature = (
        (0.0, fit_temperature(real_scores, generated_scores))
        if centred
        else fit_platt(real_scores, generated_scores)
    )
    return Calibration({"0.5": offset} | thresholds, offset, temperature, mean, std, None)


def against_chance(
    real_scores: NDArray[np.floating], generated_scores: NDArray[np.floating]
) -> dict[str, Any]:
    """AUROC on the validation images, and whether it is no better than chance.

    Args:
        real_scores: ``(n,)`` scores of real validation images.
        generated_scores: ``(m,)`` scores of generated validation images.

    Returns:
        ``auroc`` of all real against all generated validation images; ``interval``, its 95 %
        interval over images; ``chance``, whether its lower bound is at most 0.5. All None, with a
        ``reason``, where a class is missing.
    """
    if len(real_scores) == 0 or len(generated_scores) == 0:
        missing = "real" if len(real_scores) == 0 else "generated"
        reason = f"no {missing} validation image"
        return {"auroc": None, "interval": None, "chance": None, "reason": reason}
    low, high = auroc_interval(real_scores, generated_scores)
    auroc = ranking_values(real_scores, generated_scores)["auroc"]
    return {"auroc": auroc, "interval": [low, high], "chance": low <= 0.5}


def rates(scored: Sequence[SourceScores], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """TPR of all real validation images together, and TNR and AUROC of each generator.

    Args:
        scored: scores of the validation images.
        thresholds: thresholds by name.

    Returns:
        ``tpr`` at each threshold, and ``generators``: by name ``seen``, ``n``, ``auroc`` against
        the real images, its ``interval`` and ``tnr`` at each threshold.
    """
    reals = np.concatenate([source.scores for source in scored if source.real])
    generators = {
        source.name: {
            "seen": source.seen,
            "n": len(source.scores),
            "auroc": ranking_values(reals, source.scores)["auroc"],
            "interval": list(auroc_interval(reals, source.scores)),
        }
        | {
            f"tnr_at_{name}": at_threshold(reals, source.scores, threshold)["tnr"]
            for name, threshold in thresholds.items()
        }
        for source in scored
        if not source.real
    }
    none = np.empty(0, np.float32)
    return {"generators": generators} | {
        f"tpr_at_{name}": at_threshold(reals, none, threshold)["tpr"]
        for name, threshold in thresholds.items()
    }


def training_spectra(data: FaceData) -> SpectrumGuard:
    """Spectra of the training images, to recognise images with dissimilar spectra.

    Returns:
        ``mean`` and ``std`` of the radial profiles of training images, by training source, and
        the distance, by `forensics.images.spectra.nearest`, that 1 % of validation images exceed.
    """
    spectra: dict[str, dict[str, list[float]]] = {}
    for position, source in enumerate(data.sources):
        rows = data.split.train.of_source(position)
        if len(rows):
            of_source = profiles(source.rows[rows[:PROFILED_IMAGES]])
            mean, std = of_source.mean(axis=0), of_source.std(axis=0)
            spectra[source.name] = {"mean": mean.tolist(), "std": std.tolist()}
    distances: list[float] = []
    for position, source in enumerate(data.sources):
        rows = data.split.validation.of_source(position)
        if len(rows):
            of_source = profiles(source.rows[rows[:PROFILED_IMAGES]])
            distances.extend(nearest(of_source, spectra))
    return SpectrumGuard(spectra, float(np.quantile(distances, 1 - UNLIKE_SHARE)))


def measure(
    scored: Sequence[SourceScores],
    calibration: Calibration,
    seed: int,
    compared: Mapping[str, Collection[str]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All metrics of the tested sources.

    Args:
        scored: any number of real and generated sources.
        calibration: thresholds, and the probabilities whose calibration error is measured.
        seed: seed of the bootstrap.
        compared: the real sources that each generator is compared with.

    Returns:
        A list with one entry per source, and one with an entry per pair of a real source and a
        generator.
    """
    none = np.empty(0, np.float32)

    def scaled(scores: NDArray[np.floating]) -> NDArray[np.float64]:
        # In float64, where the division preserves the order of float32 scores.
        offset, temperature = calibration.offset or 0.0, calibration.temperature or 1.0
        return (scores.astype(np.float64) - offset) / temperature

    sources = []
    for source in scored:
        reals, generated = (source.scores, none) if source.real else (none, source.scores)
        rate = "tpr" if source.real else "tnr"
        row: dict[str, Any] = {
            "source": source.name,
            "real": source.real,
            "seen": source.seen,
            "n": len(source.scores),
            "mean_probability_real": None
            if calibration.temperature is None
            else float(expit(scaled(source.scores)).mean()),
        }
        for name, threshold in calibration.thresholds.items():
            at = at_threshold(reals, generated, threshold)
            row |= {f"{rate}_at_{name}": at[rate]}
            row |= {f"{rate}_at_{name}_interval": at[f"{rate}_interval"]}
        sources.append(row)
    pairs = []
    for real in (source for source in scored if source.real):
        for generator in (source for source in scored if not source.real):
            if real.name not in compared.get(generator.name, ()):
                continue
            ranks = ranking(scaled(real.scores), scaled(generator.scores), seed)
            if calibration.temperature is None:
                ranks |= undefined("ece", "scores have no probability")
            pairs.append(
                {
                    "real": real.name,
                    "generator": generator.name,
                    "seen": generator.seen,
                    "n_real": len(real.scores),
                    "n_generated": len(generator.scores),
                    "ranking": ranks,
                }
                | {
                    f"at_{name}": at_threshold(real.scores, generator.scores, threshold)
                    for name, threshold in calibration.thresholds.items()
                }
            )
    return sources, pairs
