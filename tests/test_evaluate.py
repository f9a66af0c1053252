"""`evaluate.py` as a user meets it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import NETWORK, SIZE, detector_card
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from forensics.evaluation.robustness import PERTURBATIONS
from forensics.model_files import save_model
from forensics.scoring import Detector

EVALUATE = Path(__file__).parents[1] / "evaluate.py"

Run = Callable[..., int]


@pytest.fixture
def run(
    faces: Callable[..., Any],
    detector_file: Path,
    tmp_path: Path,
    run_program: Callable[..., int],
) -> Run:
    """Run evaluate.py on 10 images of each of real, seen and unseen."""
    faces()
    arguments = [
        f"detector={detector_file.parent}",
        "dataset=paper",
        f"dataset.root={tmp_path}/faces",
        "dataset.real=[real]",
        "dataset.generators=[seen,unseen]",
        "dataset.test_count=10",
        f"cache_dir={tmp_path}/cache",
        "name=x",
    ]
    return lambda *more: run_program(EVALUATE, *arguments, *more)


def read(tmp_path: Path) -> dict[str, Any]:
    content = json.loads((tmp_path / "outputs" / "x" / "evaluation.json").read_text())
    return dict(content)


class TestAnEvaluation:
    def test_scores_are_the_detectors_and_metrics_those_of_the_scores(
        self, run: Run, tmp_path: Path, detector_file: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        (result,) = read(tmp_path)["detectors"]
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet").to_pylist()
        assert len(scores) == 30
        paths = [tmp_path / "faces" / one["source"] / one["path"] for one in scores]
        expected = [one.logit for one in Detector.load(detector_file).predict(paths)]
        assert [one["logit"] for one in scores] == pytest.approx(expected, abs=1e-5)
        assert [one["path"] for one in scores[:10]] == [f"{n:03d}.png" for n in range(20, 30)]
        logits = {
            name: np.array([one["logit"] for one in scores if one["source"] == name])
            for name in ("real", "seen", "unseen")
        }
        assert [pair["seen"] for pair in result["pairs"]] == [True, False]
        for pair in result["pairs"]:
            both = np.r_[logits["real"], logits[pair["generator"]]]
            labels = np.repeat([1, 0], 10)
            assert pair["ranking"]["auroc"] == pytest.approx(roc_auc_score(labels, both))
            best = max(
                balanced_accuracy_score(labels, both >= threshold)
                for threshold in [*both, both.max() + 1]
            )
            oracle = pair["at_oracle"]
            assert (oracle["tpr"] + oracle["tnr"]) / 2 == pytest.approx(best)
        assert (tmp_path / "outputs" / "x" / "reliability_0.png").exists()
        out, _ = capfd.readouterr()
        for said in (
            "real (real: false alarms)",
            "unseen (generated: found)",
            "real + unseen (unseen)",
            "threshold 0.5, the paper's",
            "oracle: the best threshold",
            "ECE",
            "was trained on real",
        ):
            assert said in out

    def test_images_are_matched_as_the_detectors_were(
        self, run: Run, tmp_path: Path, detector_file: Path
    ) -> None:
        card = dataclasses.asdict(detector_card(match="resample"))
        save_model(detector_file, NETWORK.build(SIZE), card)
        assert run("perturb=[noise]") == 0
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet").to_pylist()
        paths = [tmp_path / "faces" / one["source"] / one["path"] for one in scores]
        expected = [one.logit for one in Detector.load(detector_file).predict(paths)]
        assert [one["logit"] for one in scores] == pytest.approx(expected, abs=1e-5)
        assert read(tmp_path)["detectors"][0]["match"] == "resample"

    def test_several_detectors_stand_in_one_table(
        self, run: Run, tmp_path: Path, detector_file: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        other = tmp_path / "other.safetensors"
        shutil.copy(detector_file, other)
        assert run(f"detector=[{detector_file},{other}]") == 0
        assert [one["detector"] for one in read(tmp_path)["detectors"]] == [
            str(detector_file), str(other)
        ]  # fmt: skip
        out, _ = capfd.readouterr()
        assert out.count("unseen (generated: found)") == 2

    @pytest.mark.parametrize(
        ("more", "there"),
        [("dataset.generators=[]", "real"), ("dataset.real=[]", "unseen")],
    )
    def test_one_class_alone_is_enough(
        self, more: str, there: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(more, "perturb=[jpeg]") == 0
        (result,) = read(tmp_path)["detectors"]
        assert result["pairs"] == []
        assert there in [source["source"] for source in result["sources"]]
        out, _ = capfd.readouterr()
        assert "test pair" not in out
        assert f"{there}, jpeg 30" in out

    def test_perturbations_change_what_is_scored_and_strong_noise_most(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("perturb=[jpeg,blur,noise,resize]") == 0
        (result,) = read(tmp_path)["detectors"]
        said = [(one["perturbation"], one["strength"]) for one in result["perturbed"]]
        assert said == [
            (name, strength) for name, one in PERTURBATIONS.items() for strength in one.strengths
        ]
        means = {one["sources"][0]["mean_probability_real"] for one in result["perturbed"]}
        assert len(means) == len(said)
        assert (tmp_path / "outputs" / "x" / "robustness_0.png").exists()

    def test_size_and_filter_are_the_detectors_own(self, run: Run, tmp_path: Path) -> None:
        assert run("dataset.image_size=4", "dataset.resize_filter=box") == 0
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet")
        assert len(scores) == 30
        assert read(tmp_path)["detectors"][0]["image_size"] == SIZE


class TestErrors:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ("detector=nowhere", "nowhere is no readable file of a network"),
            ("detector=[]", "detector is empty"),
            ("perturb=[magic]", "perturb names magic, which is not among jpeg, blur"),
            ("dataset.real=[nobody]", "no folder .*nobody.* for the source nobody"),
            ("seed=-1", "seed must be at least 0"),
        ],
    )
    def test_are_one_sentence(
        self, more: str, said: str, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(more) == 1
        assert re.search(said, capfd.readouterr().err)

    def test_nothing_to_test_on(self, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
        assert run("dataset.real=[]", "dataset.generators=[]") == 1
        assert "are both empty" in capfd.readouterr().err

    def test_a_whole_evaluation_is_not_written_over(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        assert run() == 1
        assert "holds a whole evaluation" in capfd.readouterr().err
