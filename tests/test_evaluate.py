"""`evaluate.py` as a user meets it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import NETWORK, SIZE, detector_card, write_images
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from forensics.cli import main
from forensics.images.perturbations import PERTURBATIONS
from forensics.model_files import save_model
from forensics.scoring import Predictor

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
        expected = [one.logit for one in Predictor.load(detector_file).predict(paths)]
        assert [one["logit"] for one in scores] == expected  # to the bit: one way to a score
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
            "real (real: false positives)",
            "unseen (generated: found)",
            "threshold 0.5, the paper's",
            "oracle: the best threshold",
            "was trained on real",
        ):
            assert said in out

    def test_images_are_matched_as_the_detectors_were(
        self, run: Run, tmp_path: Path, detector_file: Path
    ) -> None:
        card = detector_card(match="resample").to_file()
        save_model(detector_file, NETWORK.build(SIZE, pretrained=False), card)
        assert run("perturb=[noise]") == 0
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet").to_pylist()
        paths = [tmp_path / "faces" / one["source"] / one["path"] for one in scores]
        expected = [one.logit for one in Predictor.load(detector_file).predict(paths)]
        assert [one["logit"] for one in scores] == expected  # to the bit: one way to a score
        assert read(tmp_path)["detectors"][0]["input"]["match"] == "resample"

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

    @pytest.mark.slow
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

    @pytest.mark.parametrize(
        "given",
        ["dataset.image_size=4", "dataset.min_side=4", "++dataset.match=jpeg",
         "dataset.view=crop", "dataset.train_on=[seen]", "dataset.split=given"],
    )  # fmt: skip
    def test_what_is_the_detectors_own_or_of_training_is_refused(
        self, given: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(given) == 1
        assert given.lstrip("+").partition("=")[0] in capfd.readouterr().err
        assert not (tmp_path / "outputs" / "x" / "evaluation.json").exists()

    def test_tables_have_a_row_for_each_generator_then_mean_and_worst(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        out, _ = capfd.readouterr()
        table = out.partition("Balanced accuracy")[2].partition("called generated")[0]
        assert max(map(len, table.splitlines())) <= 80
        folder = tmp_path / "outputs" / "x"
        with (folder / "evaluation.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["generator"] for row in rows] == ["seen", "unseen", "mean", "worst"]
        (result,) = read(tmp_path)["detectors"]
        scores = pq.read_table(folder / "scores_0.parquet").to_pylist()
        for row, pair in zip(rows, result["pairs"], strict=False):
            of_pair = [one for one in scores if one["source"] in ("real", row["generator"])]
            labels = [one["label"] for one in of_pair]
            for name, threshold in result["calibration"]["thresholds"].items():
                called = [one["logit"] >= threshold for one in of_pair]
                expected = balanced_accuracy_score(labels, called)
                assert float(row[f"balanced_accuracy_at_{name}"]) == pytest.approx(expected)
            assert float(row["auroc"]) == pytest.approx(pair["ranking"]["auroc"], abs=1e-6)
            generated = [1 - label for label in labels], [-one["logit"] for one in of_pair]
            expected = average_precision_score(*generated)
            assert float(row["ap_generated"]) == pytest.approx(expected, abs=1e-6)
        aurocs = [float(row["auroc"]) for row in rows]
        assert aurocs[2:] == pytest.approx([np.mean(aurocs[:2]), min(aurocs[:2])], abs=1e-6)
        assert (folder / "evaluation.md").read_text().count("\n| ") == 4
        assert r"\begin{tabular}" in (folder / "evaluation.tex").read_text()

    def test_small_images_are_counted_and_left_out(self, run: Run, tmp_path: Path) -> None:
        write_images(tmp_path / "faces" / "unseen", 4, 9, SIZE - 1)
        write_images(tmp_path / "faces" / "tiny", 3, 8, SIZE - 1)
        assert run("dataset.generators=[seen,unseen,tiny]") == 0
        (result,) = read(tmp_path)["detectors"]
        left_out = {name: sum(reasons.values()) for name, reasons in result["left_out"].items()}
        assert left_out == {"real": 0, "seen": 0, "unseen": 4, "tiny": 3}
        assert [pair["n_generated"] for pair in result["pairs"]] == [10, 6]

    def test_nothing_but_small_images_is_refused(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        write_images(tmp_path / "faces" / "tiny", 3, 8, SIZE - 1)
        assert run("dataset.real=[]", "dataset.generators=[tiny]") == 1
        assert str(SIZE) in capfd.readouterr().err

    def test_a_generator_is_compared_with_its_own_real_images(
        self, run: Run, tmp_path: Path
    ) -> None:
        write_images(tmp_path / "faces" / "other", 12, 7)
        assert run("dataset.real=[real,other]", "dataset.pairs={unseen: other}") == 0
        (result,) = read(tmp_path)["detectors"]
        pairs = [(pair["real"], pair["generator"]) for pair in result["pairs"]]
        assert pairs == [("real", "seen"), ("other", "seen"), ("other", "unseen")]

    @pytest.mark.parametrize(
        "given", ["dataset.pairs={nobody: real}", "dataset.pairs={unseen: nobody}",
                  "dataset.pairs={unseen: []}", "dataset.pairs={unseen: [real,nobody]}"]
    )  # fmt: skip
    def test_pairs_of_unknown_sources_are_refused(
        self, given: str, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(given) == 1
        assert "dataset.pairs" in capfd.readouterr().err


class TestBenchmark:
    """A data set as it was unpacked, by the one command."""

    @pytest.fixture
    def test(self, detector_file: Path, tmp_path: Path, run_program: Callable[..., int]) -> Run:
        return lambda root, *more: run_program(
            EVALUATE, f"detector={detector_file}", "dataset=benchmark", f"dataset.root={root}",
            f"cache_dir={tmp_path}/cache", "name=x", *more
        )  # fmt: skip

    def test_every_generator_is_tested_against_its_own_real_images(
        self, test: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        root = tmp_path / "test"
        folders = ("progan/car", "progan/cat", "biggan")
        for seed, folder in enumerate(folders):
            write_images(root / folder / "0_real", 3 + seed, seed)
            write_images(root / folder / "1_fake", 5 + seed, seed + 10)
        assert test(root) == 0
        assert "progan: 11 in progan/car/1_fake and 1 more folder" in capfd.readouterr().out
        (result,) = read(tmp_path)["detectors"]
        pairs = [(pair["real"], pair["generator"], pair["n_real"], pair["n_generated"])
                 for pair in result["pairs"]]  # fmt: skip
        assert pairs == [("real_biggan", "biggan", 5, 7), ("real_progan", "progan", 7, 11)]
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet").to_pylist()
        expected = {
            (f"{name}/{class_}/{path.name}", class_ == "0_real")
            for name in folders
            for class_ in ("0_real", "1_fake")
            for path in (root / name / class_).iterdir()
        }
        assert {(one["path"], one["label"] == 1) for one in scores} == expected

    @pytest.mark.slow
    def test_a_report_has_the_pairs_and_no_others(self, test: Run, tmp_path: Path) -> None:
        for seed, name in enumerate(("a", "b")):
            write_images(tmp_path / "test" / name / "real", 4, seed)
            write_images(tmp_path / "test" / name / "fake", 4, seed + 10)
        assert test(tmp_path / "test") == 0
        assert main(["report", str(tmp_path / "outputs" / "x")]) == 0
        with (tmp_path / "outputs" / "x" / "cells.csv").open() as file:
            pairs = {(row["real"], row["generator"]) for row in csv.DictReader(file)}
        assert pairs == {("real_a", "a"), ("real_b", "b")}

    def test_only_test_images_are_taken_of_a_data_set_with_parts(
        self, test: Run, tmp_path: Path
    ) -> None:
        for part in ("train", "valid", "test"):
            for class_ in ("real", "fake"):
                write_images(tmp_path / "140k" / part / class_, 3, len(part) + len(class_))
        assert test(tmp_path / "140k") == 0
        scores = pq.read_table(tmp_path / "outputs" / "x" / "scores_0.parquet").to_pylist()
        assert {one["path"].split("/")[0] for one in scores} == {"test"}

    def test_named_real_images_are_of_generators_without_any(
        self, test: Run, tmp_path: Path
    ) -> None:
        for seed, name in enumerate(("dalle2", "glide")):
            write_images(tmp_path / "synthbuster" / name, 3, seed)
        write_images(tmp_path / "raise", 4, 5)
        real = ["dataset.real=[raise]", f"+dataset.folders.raise={tmp_path}/raise"]
        assert test(tmp_path / "synthbuster", *real, "dataset.generators=[glide]") == 0
        (result,) = read(tmp_path)["detectors"]
        assert [(pair["real"], pair["generator"]) for pair in result["pairs"]] == [
            ("raise", "glide")
        ]

    @pytest.mark.parametrize(
        ("folders", "more", "said"),
        [
            (["a/real", "a/fake"], "dataset.generators=[b]", "dataset.generators"),
            (["a/train/real", "a/train/fake"], "seed=0", "only training images of a"),
            (["a/real", "b/fake"], "seed=0", "no generated images of a"),
        ],
    )
    def test_what_it_does_not_have_is_refused(
        self, folders: list[str], more: str, said: str, test: Run, tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        for seed, folder in enumerate(folders):
            write_images(tmp_path / "test" / folder, 2, seed)
        assert test(tmp_path / "test", more) == 1
        assert said in capfd.readouterr().err


@pytest.mark.slow
class TestReport:
    """`forensics report` of an evaluation's folder."""

    def test_it_has_the_evaluations_figures_of_each_detector(
        self, run: Run, tmp_path: Path, detector_file: Path
    ) -> None:
        other = tmp_path / "other.safetensors"
        torch.manual_seed(1)
        card = detector_card(preprocess="blur").to_file()
        save_model(other, NETWORK.build(SIZE, pretrained=False), card)
        assert run(f"detector=[{detector_file},{other}]", "perturb=[noise]") == 0
        folder = tmp_path / "outputs" / "x"
        assert main(["report", str(folder)]) == 0
        with (folder / "cells.csv").open() as file:
            rows = list(csv.DictReader(file))
        for detector, variant in zip(read(tmp_path)["detectors"], ("none", "blur"), strict=True):
            for pair in detector["pairs"]:
                (row,) = (
                    row
                    for row in rows
                    if (row["variant"], row["generator"], row["metric"], row["threshold"])
                    == (variant, pair["generator"], "tnr", "source_0.05")
                )
                assert float(row["mean"]) == pytest.approx(pair["at_source_0.05"]["tnr"])
        assert (folder / "robustness.csv").exists()
        page = (folder / "report.html").read_text()
        assert "2 detectors, tested by evaluate.py across generators" in page

    def test_detectors_that_no_setting_tells_apart_are_named_by_their_files(
        self, run: Run, tmp_path: Path, detector_file: Path
    ) -> None:
        other = tmp_path / "other.safetensors"
        shutil.copy(detector_file, other)
        assert run(f"detector=[{detector_file},{other}]") == 0
        folder = tmp_path / "outputs" / "x"
        assert main(["report", str(folder)]) == 0
        header = (folder / "report.md").read_text()
        assert f"detector={detector_file}" in header
        assert f"detector={other}" in header

    def test_scores_that_do_not_give_its_metrics_are_refused(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        path = tmp_path / "outputs" / "x" / "scores_0.parquet"
        table = pq.read_table(path)
        changed = [1 - float(logit or 0) for logit in table["logit"].to_pylist()]
        at = table.schema.get_field_index("logit")
        pq.write_table(table.set_column(at, "logit", pa.array(changed, pa.float32())), path)
        assert main(["report", str(tmp_path / "outputs" / "x")]) == 1
        assert "scores_0.parquet" in capsys.readouterr().err


class TestErrors:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ("detector=nowhere", "nowhere cannot be read"),
            ("detector=[]", "detector is empty"),
            ("perturb=[magic]", "perturb must name jpeg, blur"),
            ("perturb=[jpeg:0]", "perturb must have a whole number"),
            ("perturb=[jpeg:75.5]", "perturb must have a whole number"),
            ("perturb=[jpeg:high]", "perturb must have a whole number"),
            ("perturb=[blur:4]", "perturb must have an odd number"),
            ("perturb=[noise:-1]", "perturb must have a number from 0"),
            ("perturb=[resize:0]", "perturb must have a number above 0"),
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
        assert "has a complete evaluation" in capfd.readouterr().err
