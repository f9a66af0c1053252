"""A tested detector, as read by a report: from a run of train.py or from an evaluation.

Both provide the same for each detector: metrics in the form of ``result.json``, and scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forensics.detectors.card import current
from forensics.errors import UserError
from forensics.evaluation.metrics import at_threshold, ranking_values
from forensics.files import sha256_of
from forensics.images.perturbations import PERTURBATIONS
from forensics.reports import form
from forensics.reports.variants import trained_with
from forensics.runs import EVALUATION, PERTURBED, RESULT, SCORES, evaluated, read_result, shown

HANDLING = ("dataset.image_size", "dataset.resize_filter", "dataset.match", "dataset.view",
            "dataset.crop_size")  # fmt: skip
"""Settings that change the pixels of the same images."""

UNKNOWN = "unknown"


class Run:
    """One tested detector.

    Args:
        name: its name in messages.
        folder: folder of its files.
        result: its metrics, in the form of ``result.json``.
        settings: its training settings, as far as known, by dotted keys.
        scores: file with the scores of its test images.
        perturbed: file with their scores under perturbations; may be missing.

    Attributes:
        seed: training seed; `UNKNOWN` if its file does not record it.
        train_on: the generators it was trained on.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        result: Mapping[str, Any],
        settings: Mapping[str, Any],
        scores: Path,
        perturbed: Path,
    ) -> None:
        self.name, self.folder, self.result = name, folder, result
        self.settings = current(settings)
        self._scores, self._perturbed = scores, perturbed
        self.seed: int | str = UNKNOWN if settings["seed"] is None else settings["seed"]
        self.train_on = tuple(settings["dataset.train_on"])

    @property
    def handling(self) -> tuple[str, ...]:
        """Values of `HANDLING`; only runs with equal values test equal pixels."""
        return tuple(str(self.settings.get(key) or "none") for key in HANDLING)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Real source and generator of each tested pair."""
        return [(pair["real"], pair["generator"]) for pair in self.result["pairs"]]

    @property
    def seen(self) -> frozenset[str]:
        """The tested generators that were seen in training, including earlier training."""
        return frozenset(pair["generator"] for pair in self.result["pairs"] if pair["seen"])

    @cached_property
    def logits(self) -> dict[str, NDArray[np.float64]]:
        """Logits of the tested images by source, in the order of the test."""
        logits = _by_source(self._tested("logit"), "logit")
        form.check_sources(self._scores, set(logits))
        return logits

    def tested(self) -> dict[str, NDArray[np.str_]]:
        """Paths of the tested images by source, in the order of the test."""
        return _by_source(self._tested("path"), "path")

    def _tested(self, column: str) -> pa.Table:
        table = _read_table(self._scores, ["source", column, "split"])
        return table.filter(pc.field("split") == "test")

    @cached_property
    def perturbed(self) -> dict[tuple[str, float], dict[str, NDArray[np.float64]]]:
        """Logits of the tested images by source, for each perturbation and strength measured."""
        if not self._perturbed.exists():
            return {}
        table = _read_table(self._perturbed, ["source", "logit", "perturbation", "strength"])
        names, strengths = table["perturbation"], pc.round(table["strength"], 6)
        columns = pa.table({"name": names, "strength": strengths})
        keys = columns.group_by(columns.column_names, use_threads=False).aggregate([])
        counts = {source: len(scores) for source, scores in self.logits.items()}
        logits: dict[tuple[str, float], dict[str, NDArray[np.float64]]] = {}
        for name, strength in zip(*keys.to_pydict().values(), strict=True):
            if name not in PERTURBATIONS:
                raise form.refused(self._perturbed, f"has the unknown perturbation {name}")
            rows = pc.and_(pc.equal(names, name), pc.equal(strengths, strength))
            of_sources = _by_source(table.filter(rows), "logit")
            if {source: len(scores) for source, scores in of_sources.items()} != counts:
                raise form.refused(self._perturbed, f"has other images under {name}")
            logits[name, strength] = of_sources
        return logits

    def check(self) -> None:
        """Recompute the metrics of the result from the scores.

        Raises:
            UserError: if they differ, or the scores are not those of the result; metrics unknown to
                this version are skipped.
        """
        sha256 = self.result.get("scores_sha256")
        if sha256 is not None and sha256 != sha256_of(self._scores):
            raise form.refused(self._scores, "is not the file that its result was computed from")
        named = {pair[key] for pair in self.result["pairs"] for key in ("real", "generator")}
        hashed = set(self.result["test_hashes"])
        if hashed != set(self.logits) or not named <= hashed:
            raise form.refused(self._scores, "has other sources than its result")
        offset = self.result.get("offset") or 0.0
        temperature = self.result["temperature"] or 1.0
        for pair in self.result["pairs"]:
            real, generated = (self.logits[pair[key]] for key in ("real", "generator"))
            scaled = ((scores - offset) / temperature for scores in (real, generated))
            measured = {"ranking": ranking_values(*scaled)} | {
                f"at_{name}": at_threshold(real, generated, threshold)
                for name, threshold in self.result["thresholds"].items()
            }
            for part, metrics in measured.items():
                of_result = pair.get(part, {})
                form.check(self.folder, of_result, dict[str, Any])
                for name, value in metrics.items():
                    recorded = of_result.get(name)
                    if recorded is None or not isinstance(value, float):
                        continue
                    form.check(self.folder, recorded, float)
                    if abs(recorded - value) > 1e-6:
                        raise UserError(
                            f"{self.name}: {self._scores.name} gives {name} {value:.6f} for "
                            f"{pair['generator']}, the result has {recorded}: one of them was "
                            "changed; run it again.",
                            key=str(self._scores),
                        )


def in_order(seeds: Iterable[int | str]) -> list[int | str]:
    """Distinct seeds, ascending, an unknown one last."""
    return sorted(set(seeds), key=lambda seed: (seed == UNKNOWN, seed))


def read_runs(folder: Path) -> list[Run]:
    """Read the tested detectors of a complete folder: one of train.py, any number of evaluate.py.

    Raises:
        UserError: if the folder is of neither program.
    """
    if (folder / EVALUATION).exists():
        return _read_evaluation(folder)
    result = read_result(folder)
    if "pairs" not in result:
        raise UserError(
            f"{shown(folder)} is not a run of train.py: leave it out.",
            key=str(folder),
        )
    form.check(folder / RESULT, result, form.Trained)
    form.check_names(folder / RESULT, result)
    files = folder / SCORES, folder / PERTURBED
    return [Run(str(shown(folder)), folder, result, trained_with(result), *files)]


def is_complete(folder: Path) -> bool:
    """Whether a folder has a complete run or evaluation."""
    return any((folder / name).exists() for name in (RESULT, EVALUATION))


def _read_evaluation(folder: Path) -> list[Run]:
    path = folder / EVALUATION
    evaluation = form.read(path, form.Evaluation)
    detectors = evaluation.pop("detectors")
    settings = [_trained_with(detector) for detector in detectors]
    found = []
    for number, (detector, of_detector) in enumerate(zip(detectors, settings, strict=True)):
        # Detectors with equal recorded settings are distinguished by their paths.
        if settings.count(of_detector) > 1:
            of_detector = of_detector | {"detector": detector["detector"]}
        result = evaluation | detector["calibration"] | detector
        result |= {"toy": detector["provenance"]["toy"], "warnings": []}
        form.check(path, result, form.Result)
        form.check_names(path, result)
        files = (folder / evaluated(name, number) for name in (SCORES, PERTURBED))
        name = f"{shown(folder)}, {detector['detector']}"
        found.append(Run(name, folder, result, of_detector, *files))
    return found


def _trained_with(detector: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings recorded in a detector's file, by dotted keys."""
    network, provenance = detector["network"], detector["provenance"]
    return {
        "model": network["name"],
        **{f"model.{key}": value for key, value in network["settings"].items()},
        "preprocess": provenance["preprocess"],
        "dataset.real": provenance["real"],
        "dataset.train_on": provenance["trained_on"],
        **{f"dataset.{key}": detector["input"][key] for key in
           ("image_size", "resize_filter", "match", "view", "crop_size")
           if key in detector["input"]},
        "seed": provenance["seed"],
    }  # fmt: skip


def _read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a table of scores, with the types that this program writes.

    Raises:
        UserError: if it is missing, damaged or has others.
    """
    try:
        table = pq.read_table(path, columns=list(columns))
        table = pa.table({
            name: table[name].cast(pa.float64() if name in ("logit", "strength") else pa.string())
            for name in columns
        })  # fmt: skip
    except (OSError, KeyError, pa.ArrowException) as error:
        raise form.refused(path, f"cannot be read ({error})") from error
    for name in columns:
        column = table[name]
        finite = pa.types.is_string(column.type) or pc.all(pc.is_finite(column)).as_py()
        if column.null_count or not finite:
            raise form.refused(path, f"has empty or infinite cells in {name}")
    return table


def _by_source(table: pa.Table, column: str) -> dict[str, NDArray[Any]]:
    """A column's values by source, sources in the order of their first row."""
    sources = table["source"].combine_chunks().dictionary_encode()
    numbers = sources.indices.to_numpy()
    values = table[column].to_numpy()
    if values.dtype == object:
        values = values.astype(np.str_)
    return {
        str(name): values[numbers == at] for at, name in enumerate(sources.dictionary.to_pylist())
    }
