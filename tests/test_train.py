"""`train.py` as a user meets it: what it prints, what it leaves, how it ends."""

import csv
import errno
import json
import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import dying_train, started, stop, write_images
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, recall_score, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forensics.data.datamodule import FaceData, PartImages
from forensics.detectors import DETECTORS
from forensics.detectors.card import UPGRADES
from forensics.model_files import load_model
from forensics.preprocess import PREPROCESSES
from forensics.reports.report import write_report
from forensics.scoring import Predictor
from forensics.scoring.scorer import Scorer
from forensics.training import checkpoints
from forensics.training.detector_task import DetectorTask

TRAIN = Path(__file__).parents[1] / "train.py"

Run = Callable[..., int]


@pytest.fixture
def run(arguments: list[str], run_program: Callable[..., int]) -> Run:
    """Run train.py in this process, from ``tmp_path``; returns the exit code."""

    def run(*more: str, resume: bool = False) -> int:
        return run_program(TRAIN, *more) if resume else run_program(TRAIN, *arguments, *more)

    return run


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("complete")


@pytest.fixture
def complete(run: Run, stored: Path, tmp_path: Path) -> Path:
    """The folder ``outputs/x`` of a complete run, trained once for all tests."""
    if not (stored / "outputs").exists():
        assert run("name=x") == 0
        shutil.copytree(tmp_path / "outputs", stored / "outputs")
    else:
        shutil.copytree(stored / "outputs", tmp_path / "outputs")
    return tmp_path / "outputs" / "x"


def read_scores(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    table = pq.read_table(folder / "scores.parquet")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return dict(loaded["state_dict"])


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class TestARun:
    def test_leaves_a_folder_whose_parts_agree(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x", "preprocess=noise") == 0
        folder = tmp_path / "outputs" / "x"
        result = json.loads((folder / "result.json").read_text())

        # What is printed
        out, _ = capfd.readouterr()
        assert "real + unseen (unseen)" in out
        assert f"kept: epoch {result['epoch']}, the lowest val/loss" in out
        assert max(map(len, out.splitlines())) <= 80
        header = [line.partition(" ") for line in out.partition("epoch 1 of 2")[0].splitlines()]
        facts = {name: fact.strip() for name, _, fact in header}
        assert facts["device"].endswith(("float32", "bfloat16"))
        assert facts["model"].startswith("dcgan_discriminator, ")
        assert facts["images"] == "16 px, view resize; preprocess noise"
        assert facts["run"] == "outputs/x, new"
        assert facts["train"] == "16 real, 16 seen"
        assert facts["validation"] == "4 real, 4 seen"
        assert facts["test"] == "10 real, 10 seen, 10 unseen (unseen)"
        assert result["debug"] is False
        assert "Run folder: outputs/x" in out
        assert "tensorboard --logdir outputs" in out

        # Scores: every tested image once, and from them every metric again.
        scores = read_scores(folder)
        tested = scores["split"] == "test"
        assert sorted(zip(scores["source"][tested], scores["path"][tested], strict=True)) == sorted(
            (source, f"{number:03d}.png")
            for source, last in (("real", 30), ("seen", 30), ("unseen", 10))
            for number in range(last - 10, last)
        )
        held_out = scores["logit"][~tested & (scores["label"] == 1)]
        thresholds = result["thresholds"]
        assert list(thresholds) == ["0.5", "source_0.05", "source_0.01"]
        assert thresholds["0.5"] == 0.0
        for rate in (0.05, 0.01):
            assert (held_out < thresholds[f"source_{rate}"]).mean() <= rate
        for pair in result["pairs"]:
            both = tested & np.isin(scores["source"], [pair["real"], pair["generator"]])
            labels, logits = scores["label"][both], scores["logit"][both]
            for name, threshold in thresholds.items():
                called, at = logits >= threshold, pair[f"at_{name}"]
                assert at["acc"] == pytest.approx(accuracy_score(labels, called))
                assert at["tpr"] == pytest.approx(recall_score(labels, called))
                assert at["tnr"] == pytest.approx(recall_score(labels, called, pos_label=0))
            ranking = pair["ranking"]
            assert ranking["auroc"] == pytest.approx(roc_auc_score(labels, logits))
            assert ranking["ap_generated"] == pytest.approx(
                average_precision_score(1 - labels, -logits)
            )
        assert [pair["seen"] for pair in result["pairs"]] == [True, False]
        found, kept = result["validation"], ~tested
        assert found["auroc"] == pytest.approx(
            roc_auc_score(scores["label"][kept], scores["logit"][kept])
        )
        assert found["chance"] is (found["interval"][0] <= 0.5)
        assert ("than chance" in out) is found["chance"]
        assert result["images"]["test"] == {"real": 10, "seen": 10, "unseen": 10}

        # The detector file scores as the run did, in the numbers it did.
        _, card, _ = load_model(
            folder / "detector.safetensors", DETECTORS, UPGRADES, pretrained=False
        )
        calibration = card["calibration"]
        assert calibration["thresholds"] == result["thresholds"]
        assert calibration["temperature"] == result["temperature"] > 0
        assert calibration["offset"] == result["offset"] == 0
        assert set(card["guard"]["spectra"]) == {"real", "seen"}
        assert card["provenance"]["seed"] == 0
        assert card["input"]["precision"] == "auto"
        pairs = zip(scores["source"], scores["path"], strict=True)
        paths = [tmp_path / "faces" / source / path for source, path in pairs]
        predicted = [one.logit for one in Predictor.load(folder).predict(paths)]
        assert predicted == scores["logit"].tolist()  # to the bit: one way to a score

        # TensorBoard
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()
        for scalar in (
            "train/loss",
            "val/loss",
            "val/accuracy",
            "val/tpr",
            "unseen/auroc_mean",
        ):
            assert scalar in tags["scalars"]
        for image_tag in ("preprocess", "test/roc", "test/precision_recall"):
            assert image_tag in tags["images"]
        assert "probability_real/unseen" in tags["histograms"]
        assert "epoch" not in tags["scalars"]
        summary = result["summary"]["unseen"]
        at = result["pairs"][1]["at_source_0.05"]
        assert summary["at_source_0.05"]["worst"] == pytest.approx((at["tpr"] + at["tnr"]) / 2)
        (last,) = events.Scalars("unseen/balanced_accuracy_worst")
        assert last.value == pytest.approx(summary["at_source_0.05"]["worst"])
        with (folder / "epochs.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert found["loss"] == float(rows[result["epoch"] - 1]["val/loss"])
        assert not (folder / "failed.json").exists()

    @pytest.mark.slow
    @pytest.mark.usefixtures("undrawn")
    def test_a_new_picture_is_matched_as_the_tested_ones_were(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("name=x", "dataset.match=jpeg", "trainer.precision=fp32", "perturb=[noise]") == 0
        folder = tmp_path / "outputs" / "x"
        result = json.loads((folder / "result.json").read_text())
        assert result["settings"]["dataset"]["match"] == "jpeg"
        scores = read_scores(folder)
        pairs = zip(scores["source"], scores["path"], strict=True)
        paths = [tmp_path / "faces" / source / path for source, path in pairs]
        got = [one.logit for one in Predictor.load(folder).predict(paths)]
        assert got == scores["logit"].tolist()

    @pytest.mark.slow
    @pytest.mark.usefixtures("undrawn")
    def test_is_the_same_again_with_the_same_seed_and_another_with_another(
        self, run: Run, tmp_path: Path
    ) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            given = [f"name={name}", f"seed={seed}", "preprocess=blur_noise", "audit=off"]
            assert run(*given) == 0
        of = {name: weights(tmp_path / "outputs" / name) for name in "abc"}
        assert_equal(of["a"], of["b"])
        assert not torch.equal(of["a"]["detector.score.weight"], of["c"]["detector.score.weight"])

    @pytest.mark.slow
    @pytest.mark.usefixtures("undrawn")
    def test_never_looks_at_a_test_image_before_the_test(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fitted: set[bytes] = set()
        scored: set[bytes] = set()
        read, score = PartImages.__getitem__, Scorer.score_rows

        def reading(self: PartImages, place: Any) -> Any:  # noqa: ANN401
            assert not scored  # the test comes last
            batch = read(self, place)
            fitted.update(image.permute(1, 2, 0).numpy().tobytes() for image in batch.images)
            return batch

        def scoring(self: Scorer, rows: Any) -> Any:  # noqa: ANN401
            scored.update(row.tobytes() for row in rows)
            return score(self, rows)

        monkeypatch.setattr(PartImages, "__getitem__", reading)
        monkeypatch.setattr(Scorer, "score_rows", scoring)
        assert run() == 0
        last = {"real": 30, "seen": 30, "unseen": 10}
        tested = {
            np.asarray(Image.open(tmp_path / "faces" / source / f"{row:03d}.png")).tobytes()
            for source, count in last.items()
            for row in range(count - 10, count)
        }
        assert len(tested) == 30
        assert tested < scored
        assert len(fitted) > 30
        assert not fitted & tested

    @pytest.mark.usefixtures("undrawn")
    def test_a_quick_one_sees_two_batches_and_says_so_everywhere(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x", "debug=quick", "batch_size=4", "audit=off") == 0
        said = capfd.readouterr().out
        assert said.count("debug=quick: two batches of everything") == 2  # first and last
        assert "epoch 1 of 1:" in said
        folder = tmp_path / "outputs" / "x"
        result = json.loads((folder / "result.json").read_text())
        assert result["debug"] is True
        assert result["images"]["train"] == {"real": 6, "seen": 6, "unseen": 0}
        assert result["images"]["test"] == {"real": 8, "seen": 8, "unseen": 8}
        events = EventAccumulator(str(folder)).Reload()
        start = events.SummaryMetadata("_hparams_/session_start_info")
        assert b"quick" in start.plugin_data.content
        write_report([folder], tmp_path)
        assert (tmp_path / "report.md").read_text().startswith("**Trial runs with debug=quick")
        assert "Trial runs with debug=quick" in (tmp_path / "report.html").read_text()

    @pytest.mark.slow
    def test_warns_of_nothing_a_user_could_not_act_on(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run() == 0
        said = "".join(capfd.readouterr())
        assert "arning" not in said
        assert "GPU" not in said
        assert "💡" not in said


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
class TestAudit:
    @pytest.fixture(autouse=True)
    def _grey(self, arguments: list[str], tmp_path: Path) -> None:
        """The generated images that train are grey, which their files say, too."""
        del arguments  # makes the images
        for path in (tmp_path / "faces" / "seen").iterdir():
            Image.open(path).convert("L").save(path)

    def test_is_said_and_written_down(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x") == 0
        sentence = "seen can be told from real by file formats alone"
        said = capfd.readouterr().out
        assert re.search(r"^seen / real: format +1\.000  dataset\.match=codec$", said, re.M)
        assert sentence not in said
        audited = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())["audit"]
        assert any(sentence in warning for warning in audited["warnings"])
        assert {check["generator"] for check in audited["traits"]} == {"seen"}

    def test_stops_the_run_if_told_to(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x", "audit=fail") == 1
        *_, said = capfd.readouterr().err.strip().splitlines()
        assert re.match(r"The audit has \d+ warnings, the first: seen can be told from real", said)
        assert not (tmp_path / "outputs" / "x" / "checkpoints" / "last.ckpt").exists()

    def test_is_left_out_if_told_to(self, run: Run, tmp_path: Path) -> None:
        assert run("name=x", "audit=off") == 0
        assert json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())["audit"] is None


@pytest.mark.usefixtures("undrawn")
class TestErrors:
    """Each is one sentence that names key or path, exit code 1, without a traceback."""

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ("dataset.real=[nobody]", "no folder .*nobody.* for the source nobody"),
            ("batch_size=64", "batch_size=64 is more than the 32 training images"),
            ("seed=-1", "seed must be at least 0"),
            ("dataset.train_on=[]", "dataset.train_on is empty"),
            ("resume=nowhere", "resume=nowhere is not a run folder"),
            ("model.channels=[4,8,16,32,64]", "dataset.image_size must be a multiple of 32"),
        ],
    )
    def test_of_settings(
        self, more: str, said: str, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(more) == 1
        _, err = capfd.readouterr()
        assert re.search(said, err)
        assert len(err.strip().splitlines()) == 1

    def test_that_are_told_before_anything_is_done_leave_nothing(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("seed=-1") == 1
        assert list((tmp_path / "outputs").iterdir()) == []

    def test_show_their_traceback_when_asked(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("seed=-1", "hydra.verbose=true") == 1
        assert "Traceback" in capfd.readouterr().err

    @pytest.mark.slow
    def test_of_an_empty_folder(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        shutil.rmtree(tmp_path / "faces" / "seen")
        (tmp_path / "faces" / "seen").mkdir()
        assert run() == 1
        assert re.search("faces/seen of the source seen has no", capfd.readouterr().err)

    def test_of_an_unwritable_output(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        assert run("hydra.run.dir=file/x") == 1
        assert "file/x: Not a directory" in capfd.readouterr().err

    @pytest.mark.slow
    def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        step = DetectorTask.training_step

        def breaking(self: DetectorTask, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ANN401
            loss = step(self, batch, batch_idx)
            assert loss is not None
            return loss * float("nan") if self.current_epoch == 1 and batch_idx == 1 else loss

        monkeypatch.setattr(DetectorTask, "training_step", breaking)
        assert run("name=x") == 1
        folder = tmp_path / "outputs" / "x"
        assert re.search(r"loss .* epoch 2: lower model\.learning_rate", capfd.readouterr().err)
        assert "loss" in json.loads((folder / "failed.json").read_text())["error"]
        assert not (folder / "result.json").exists()
        for tensor in weights(folder).values():
            assert tensor.isfinite().all()

    @pytest.mark.slow
    def test_a_score_that_is_no_number_names_its_image(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        score = Scorer.scores

        def breaking(self: Scorer, *given: Any, label: str) -> Any:  # noqa: ANN401
            scores = score(self, *given, label=label)
            scores[0] = np.nan if label == "test" else 0
            return scores

        monkeypatch.setattr(Scorer, "scores", breaking)
        assert run("name=x") == 1
        said = capfd.readouterr().err
        assert re.search(
            r"images got a score that is not a finite number, the first real/020\.png", said
        )
        assert not (tmp_path / "outputs" / "x" / "result.json").exists()

    @pytest.mark.slow
    def test_a_full_disk_keeps_the_checkpoint_before(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        save, calls = torch.save, []

        def full(content: object, file: Any) -> None:  # noqa: ANN401
            calls.append(file)
            save(content, file)
            if len(calls) > 2:  # the second epoch's first checkpoint
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch, "save", full)
        assert run("name=x") == 1
        assert re.search("Cannot write .*ckpt .*No space left", capfd.readouterr().err)
        folder = tmp_path / "outputs" / "x"
        kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert kept == ["best.ckpt", "last.ckpt"]
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        assert weights(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("model", ["dcgan_discriminator", "residual_patches"])
class TestCrop:
    def test_a_resumed_run_and_predict_agree_with_the_complete_one(
        self, model: str, run: Run, tmp_path: Path
    ) -> None:
        given = [
            f"model={model}", "dataset.view=crop", "dataset.crop_size=16", "dataset.image_size=8",
            "dataset.min_side=16", "preprocess=noise", "audit=off", "trainer.precision=fp32",
        ]  # fmt: skip
        assert run("name=long", *given) == 0
        assert run("name=short", "max_epochs=1", *given) == 0
        assert run("resume=outputs/short", "max_epochs=2", resume=True) == 0
        outputs = tmp_path / "outputs"
        assert_equal(weights(outputs / "long"), weights(outputs / "short"))
        scores = read_scores(outputs / "long")
        pairs = zip(scores["source"], scores["path"], strict=True)
        paths = [tmp_path / "faces" / source / path for source, path in pairs]
        predictor = Predictor.load(outputs / "long")
        assert (predictor.card.input.view, predictor.card.input.crop_size) == ("crop", 16)
        assert [one.logit for one in predictor.predict(paths)] == scores["logit"].tolist()
        # By hand: the mean over the four quarters, or the complete square.
        rows = np.stack([np.asarray(Image.open(path)) for path in paths])
        images = torch.from_numpy(rows).permute(0, 3, 1, 2).float()
        quarters = [images[:, :, top:, left:][..., :8, :8] for top in (0, 8) for left in (0, 8)]
        detector = predictor.scorer.detector.eval()
        parts = [images] if model == "residual_patches" else quarters
        with torch.inference_mode():
            expected = torch.stack([detector(part) for part in parts]).mean(dim=0)
        assert scores["logit"] == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
class TestResume:
    def test_more_epochs_give_the_weights_of_one_long_run(self, run: Run, tmp_path: Path) -> None:
        given = ["preprocess=noise", "audit=off"]
        assert run("name=long", "max_epochs=4", *given) == 0
        assert run("name=short", *given) == 0
        assert run("resume=outputs/short", "max_epochs=4", resume=True) == 0
        outputs = tmp_path / "outputs"
        assert_equal(weights(outputs / "long"), weights(outputs / "short"))
        long, short = (
            json.loads((outputs / name / "result.json").read_text()) for name in ("long", "short")
        )
        assert long["pairs"] == short["pairs"]
        assert short["settings"]["max_epochs"] == 4

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["seed=3", "max_epochs=5"], "with seed=0, not 3"),
            (["model.channels=[4,4]", "max_epochs=5"], "with model.channels=[4, 8], not [4, 4]"),
            (["preprocess=blur", "max_epochs=5"], "with preprocess=none, not blur"),
            (["--cfg", "job"], "as further arguments: leave out --cfg"),
            (["-m", "seed=0,1"], "as further arguments: leave out -m"),
            ([], "is complete after its 2 epochs"),
        ],
    )
    def test_is_refused_where_it_would_not_be_the_same_run(
        self,
        complete: Path,
        more: list[str],
        said: str,
        run: Run,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        record = (tmp_path / "outputs" / "x" / ".hydra" / "overrides.yaml").read_text()
        capfd.readouterr()
        assert run("resume=outputs/x", *more, resume=True) == 1
        assert said in capfd.readouterr().err
        assert (tmp_path / "outputs" / "x" / "result.json").exists()
        assert (tmp_path / "outputs" / "x" / ".hydra" / "overrides.yaml").read_text() == record

    def test_a_run_from_before_there_were_front_ends_goes_on_without_one(
        self, complete: Path, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = complete / "checkpoints" / "last.ckpt"
        checkpoint = checkpoints.load(path)
        del checkpoint["settings"]["model.front_end"]
        torch.save(checkpoint, path)
        assert run("resume=outputs/x", "model.front_end=lpd", "max_epochs=3", resume=True) == 1
        assert "with model.front_end=rgb, not lpd" in capfd.readouterr().err
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 0

    def test_a_folder_in_use_is_refused(
        self, complete: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        result = tmp_path / "outputs" / "x" / "result.json"
        before = result.read_bytes()
        assert run("name=x", "seed=5") == 1
        assert "outputs/x has a complete run" in capfd.readouterr().err
        assert result.read_bytes() == before
        result.unlink()
        assert run("name=x", "seed=5") == 1
        assert "resume it with resume=outputs/x" in capfd.readouterr().err
        assert not (tmp_path / "outputs" / "x" / "failed.json").exists()

    def test_other_images_than_it_began_with_are_refused_and_nothing_is_lost(
        self, complete: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "outputs" / "x"
        kept = {name: (folder / name).read_bytes() for name in ("result.json", "scores.parquet")}
        write_images(tmp_path / "faces" / "seen", 1, seed=99)
        assert run("++resume=outputs/x", "max_epochs=3", resume=True) == 1
        assert "The images of seen are not those that the run began with" in capfd.readouterr().err
        assert kept == {name: (folder / name).read_bytes() for name in kept}
        assert not (folder / "failed.json").exists()

    def test_a_schedule_over_all_epochs_makes_their_number_part_of_the_training(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x", "model.schedule=cosine", "model.learning_rate=0.01") == 0
        rates = {
            name: checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
            for name in ("previous", "last")
            for checkpoint in [checkpoints.load(tmp_path / f"outputs/x/checkpoints/{name}.ckpt")]
        }
        # Four batches an epoch: the next step is the fifth of eight, then there is none.
        assert rates["previous"] == pytest.approx(0.01 * (1 + math.cos(math.pi * 5 / 8)) / 2)
        assert rates["last"] == 0
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 1
        assert "max_epochs=2, not 3" in capfd.readouterr().err

    def test_a_run_that_was_moved_still_knows_its_best_epoch(
        self, complete: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "outputs" / "x").rename(tmp_path / "elsewhere")
        best = tmp_path / "elsewhere" / "checkpoints" / "best.ckpt"
        content = best.read_bytes()
        step = DetectorTask.validation_step

        def worse(self: DetectorTask, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
            step(self, batch, batch_idx)
            self._val_loss.update(torch.tensor(1e9))

        monkeypatch.setattr(DetectorTask, "validation_step", worse)
        assert run("resume=elsewhere", "max_epochs=3", resume=True) == 0
        assert weights(tmp_path / "elsewhere")
        assert best.read_bytes() == content

    def test_what_a_kill_left_half_written_is_removed(
        self, complete: Path, run: Run, tmp_path: Path
    ) -> None:
        folder = tmp_path / "outputs" / "x"
        left = [
            folder / ".result.json.4711.unfinished",
            folder / "checkpoints" / ".last.ckpt.4711.unfinished",
            folder / ".hydra" / ".config.yaml.4711.unfinished",
            folder / "mistakes" / ".seen.png.4711.unfinished",
        ]
        for path in left:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"half")
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 0
        assert not any(path.exists() for path in left)
        assert not list(folder.rglob("*.unfinished"))

    @pytest.mark.parametrize(
        ("owner", "hook"),
        [
            (FaceData, "setup"),
            (DetectorTask, "validation_step"),
            (Scorer, "scores"),
        ],
    )
    def test_stopped_anywhere_it_says_how_to_resume_and_can(
        self,
        complete: Path,
        owner: type,
        hook: str,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        capfd.readouterr()
        with monkeypatch.context() as patched:
            patched.setattr(owner, hook, stop)
            assert run("name=y") == 130
        said = "".join(capfd.readouterr())
        assert "Resume with: python train.py resume=outputs/y" in said
        assert "Traceback" not in said
        assert run("resume=outputs/y", resume=True) == 0
        resumed, never_stopped = (
            json.loads((folder / "result.json").read_text())
            for folder in (tmp_path / "outputs" / "y", complete)
        )
        assert resumed["pairs"] == never_stopped["pairs"]
        assert resumed["settings"]["name"] == "y"

    @pytest.mark.parametrize("damage", ["cut", "flipped"])
    def test_a_damaged_checkpoint_is_told_and_the_one_before_offered(
        self,
        complete: Path,
        damage: str,
        run: Run,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        last = tmp_path / "outputs" / "x" / "checkpoints" / "last.ckpt"
        content = bytearray(last.read_bytes())
        if damage == "cut":
            content = content[: len(content) // 2]
        else:
            weight = weights(last.parents[1])["detector.score.weight"].numpy().tobytes()
            content[content.find(weight)] ^= 1
        last.write_bytes(content)
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 1
        assert re.search("last.ckpt is corrupt .*previous.ckpt", capfd.readouterr().err)
        last.unlink()
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 0

    def test_a_checkpoint_that_would_run_code_is_refused(
        self, complete: Path, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"state_dict": Bomb()}, tmp_path / "outputs/x/checkpoints/last.ckpt")
        assert run("resume=outputs/x", "max_epochs=3", resume=True) == 1
        assert "corrupt" in capfd.readouterr().err
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.slow
    def test_after_kill_9_in_mid_epoch_gives_the_uninterrupted_weights(
        self, run: Run, arguments: list[str], tmp_path: Path
    ) -> None:
        longer = ["max_epochs=4", "preprocess=blur_noise", "audit=off"]
        process = started(dying_train(tmp_path), *arguments, *longer, "name=killed")
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        killed, whole = tmp_path / "outputs" / "killed", tmp_path / "outputs" / "complete"
        assert torch.load(killed / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1

        assert run("resume=outputs/killed", resume=True) == 0
        assert run(*longer, "name=complete") == 0
        assert_equal(weights(killed), weights(whole))
        assert (
            json.loads((killed / "result.json").read_text())["pairs"]
            == json.loads((whole / "result.json").read_text())["pairs"]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_a_stopped_run_says_how_to_go_on(
        self, how: signal.Signals, run: Run, arguments: list[str], tmp_path: Path
    ) -> None:
        process = started(TRAIN, *arguments, "max_epochs=100000", "audit=off", "name=x")
        last = tmp_path / "outputs" / "x" / "checkpoints" / "last.ckpt"
        for _ in range(600):
            if last.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(how)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "resume=outputs/x" in said
        assert "Traceback" not in said
        done = torch.load(last, weights_only=True)["epoch"] + 1
        assert run("resume=outputs/x", f"max_epochs={done + 1}", resume=True) == 0


def of_two_nodes(launcher: str) -> list[dict[str, str]]:
    """The variables of the two processes that a launcher starts on two nodes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if launcher == "slurm":
        job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "2",
               "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0",
               "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        return [job | {"SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in "01"]
    job = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2",
           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
    return [job | {"RANK": rank, "GROUP_RANK": rank} for rank in "01"]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
class TestSeveral:
    def test_a_sweep_runs_the_jobs_that_can_and_tells_of_the_other(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        sweep = ["-m", "hydra.sweep.dir=outputs/sweep"]
        assert run(*sweep, "preprocess=noise", "seed=0,-1,0") == 1
        said = "".join(capfd.readouterr())
        assert "1_paper_dcgan_discriminator_noise_seed-1 failed: seed must be at least 0" in said
        first, again = (
            tmp_path / "outputs" / "sweep" / f"{job}_paper_dcgan_discriminator_noise_seed0"
            for job in (0, 2)
        )
        # Nothing leaks from job to job.
        assert_equal(weights(first), weights(again))
        for folder in (first, again):
            assert (folder / "result.json").exists()

    @pytest.mark.parametrize("launcher", [None, "slurm", "torchrun"])
    def test_two_devices_learn_the_same_see_every_image_once_and_measure_the_same(
        self, launcher: str | None, run: Run, arguments: list[str], tmp_path: Path
    ) -> None:
        # Without BatchNorm, whose statistics are of each device's part on CPUs, the mean gradient
        # of two halves of a batch is that of the complete.
        same = [
            "model.learning_rate=1e-3",
            "model.channels=[8]",
            "trainer.precision=fp32",
            "audit=off",
        ]
        assert run(*same, "name=on1") == 0
        several = "trainer.nodes=2" if launcher else "trainer.devices=2"

        processes = [
            started(TRAIN, *arguments, *same, several, "name=on2", variables=of_process)
            for of_process in (of_two_nodes(launcher) if launcher else [{}])
        ]
        for process, (said, _) in [(p, p.communicate()) for p in processes]:
            assert process.returncode == 0, said
            assert "sync_dist" not in said
        assert {path.name for path in tmp_path.glob("outputs/on*")} == {"on1", "on2"}
        one, two = (read_scores(tmp_path / "outputs" / f"on{devices}") for devices in (1, 2))
        assert (one["path"] == two["path"]).all()
        assert (one["source"] == two["source"]).all()
        np.testing.assert_allclose(one["logit"], two["logit"], rtol=1e-4, atol=1e-5)
        assert np.ptp(one["logit"]) > 0.01
        results = [
            json.loads((tmp_path / "outputs" / f"on{n}" / "result.json").read_text())
            for n in (1, 2)
        ]
        for single, double in zip(*(result["pairs"] for result in results), strict=True):
            assert single["at_0.5"] == double["at_0.5"]

    def test_nodes_need_a_launcher_and_its_processes_a_name(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert run("trainer.nodes=2") == 1
        assert "srun or torchrun" in capfd.readouterr().err
        for name, value in of_two_nodes("torchrun")[1].items():
            monkeypatch.setenv(name, value)
        before = sorted((tmp_path / "outputs").glob("*"))
        assert run("trainer.nodes=2") == 1
        assert "add name=NAME" in capfd.readouterr().err
        assert sorted((tmp_path / "outputs").glob("*")) == before

    def test_two_devices_in_a_sweep_are_refused(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("-m", "trainer.devices=2", "seed=0,1") == 1
        assert "leave out --multirun" in capfd.readouterr().err

    def test_a_preprocess_from_outside_the_package_needs_no_change_inside(
        self,
        run_program: Callable[..., int],
        arguments: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(PREPROCESSES, "darker", object)  # gone again when the test ends
        (tmp_path / "conf" / "preprocess").mkdir(parents=True)
        (tmp_path / "conf" / "preprocess" / "darker.yaml").write_text(
            "defaults:\n  - /schema/preprocess/darker@_here_\n\nfactor: 0.5\n"
        )
        mine = tmp_path / "mine.py"
        mine.write_text(
            "import runpy\n"
            "from dataclasses import dataclass\n"
            "from forensics.preprocess import PREPROCESSES, Preprocessed\n"
            "@dataclass\n"
            "class Darker:\n"
            "    factor: float\n"
            "    def __call__(self, images, draws):\n"
            "        return Preprocessed(images * self.factor, {})\n"
            "PREPROCESSES['darker'] = Darker\n"
            f"runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
        )
        given = ["--config-dir=conf", *arguments, "preprocess=darker", "name=x"]
        assert run_program(mine, *given) == 0
        result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
        assert result["preprocess"] == "darker"

    def test_the_default_run_on_the_demo_works_from_a_checkout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        few = ["dataset.train_count=40", "dataset.test_count=10", "max_epochs=1"]
        process = started(TRAIN, *few, "preprocess=noise", "name=demo")
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert "demo_real + demo_dcgan (unseen)" in said
        assert "Toy data" in said
        result = json.loads((tmp_path / "outputs" / "demo" / "result.json").read_text())
        assert result["toy"] is True
