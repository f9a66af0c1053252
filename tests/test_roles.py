"""Sources that are in no test pair: unseen real ones, and generators that only validate."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_images
from sklearn.metrics import roc_auc_score

from forensics.cli import main

ROOT = Path(__file__).parents[1]
TRAIN, EVALUATE = ROOT / "train.py", ROOT / "evaluate.py"


@pytest.mark.slow
def test_a_run_and_its_report_give_their_rates(
    run_program: Callable[..., int],
    arguments: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for seed, name in enumerate(("other", "held_out")):
        write_images(tmp_path / "faces" / name, 30, seed=7 + seed)
    roles = ["dataset.unseen_real=[other]", "dataset.validate_on=[held_out]"]
    more = ["audit=warn", "perturb=[noise:60,jpeg:75]", "name=x"]
    assert run_program(TRAIN, *arguments, *roles, *more) == 0
    folder = tmp_path / "outputs" / "x"
    said = capfd.readouterr().out
    assert "other (real, unseen)" in said
    assert "validation only, held_out" in said

    result = json.loads((folder / "result.json").read_text())
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    scores: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        scores.setdefault((row["split"], row["source"]), []).append(row["logit"])
        assert row["label"] == (row["source"] in ("real", "other"))
    assert ("test", "held_out") not in scores
    assert ("validation", "other") not in scores
    assert {pair["real"] for pair in result["pairs"]} == {"real"}
    assert set(result["test_hashes"]) == {"real", "other", "seen", "unseen"}

    real, held_out = (scores["validation", name] for name in ("real", "held_out"))
    assert len(real) == len(held_out) == 4
    found = result["validation"]["generators"]["held_out"]
    labels = [1] * 4 + [0] * 4
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, [*real, *held_out]))
    threshold = result["thresholds"]["source_0.05"]
    assert found["tnr_at_source_0.05"] == np.mean(np.array(held_out) < threshold)
    other = np.array(scores["test", "other"])
    (of_other,) = (one for one in result["sources"] if one["source"] == "other")
    assert of_other["tpr_at_source_0.05"] == np.mean(other >= threshold)

    noisy, compressed = result["validation"]["perturbed"]
    assert (noisy["perturbation"], noisy["strength"]) == ("noise", 60)
    assert (compressed["perturbation"], compressed["strength"]) == ("jpeg", 75)
    assert noisy["generators"].keys() == compressed["generators"].keys() == {"seen", "held_out"}
    tested = pq.read_table(folder / "perturbed.parquet").to_pylist()
    assert {(row["perturbation"], row["strength"]) for row in tested} == {
        ("noise", 60),
        ("jpeg", 75),
    }
    assert len(tested) == 2 * len([row for row in rows if row["split"] == "test"])

    assert main(["report", str(folder)]) == 0
    with (folder / "roles.csv").open() as file:
        rates = {(row["source"], row["metric"], row["threshold"]): float(row["mean"])
                 for row in csv.DictReader(file)}  # fmt: skip
    assert rates["other", "fpr", "source_0.05"] == pytest.approx(np.mean(other < threshold))
    assert rates["held_out", "auroc", ""] == pytest.approx(found["auroc"])
    assert "held_out" in (folder / "report.html").read_text()


@pytest.mark.parametrize("given", ["unseen_real=[other]", "validate_on=[held_out]", "paired=true"])
def test_an_evaluation_refuses_roles_of_training(
    run_program: Callable[..., int],
    arguments: list[str],
    given: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    used = ("dataset", "dataset.root", "dataset.real", "dataset.generators")
    sources = [one for one in arguments if one.partition("=")[0] in used]
    assert run_program(EVALUATE, *sources, f"dataset.{given}", "detector=nowhere") == 1
    assert f"dataset.{given.partition('=')[0]}" in capfd.readouterr().err
