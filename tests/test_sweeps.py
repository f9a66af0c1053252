"""Sweeps as a user meets them: several jobs at once, killed ones, and the same sweep again."""

import csv
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import started
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from forensics import config
from forensics.training.settings import TrainSettings

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"
STUDIES = sorted((ROOT / "experiments").glob("*/*.yaml"))


@pytest.fixture
def sweep(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two jobs, which differ in their seed, into ``outputs/sweep``."""
    monkeypatch.chdir(tmp_path)
    return [
        "-m", *arguments, "audit=off", "seed=0,1", "hydra.sweep.dir=outputs/sweep",
        "hydra.sweep.subdir=seed${seed}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swept")


@pytest.fixture
def swept(
    sweep: list[str],
    stored: Path,
    undrawn: None,
    run_program: Callable[..., int],
    tmp_path: Path,
) -> Path:
    """The folder of that sweep after its end, trained once for all tests."""
    folder = tmp_path / "outputs" / "sweep"
    if not (stored / "sweep").exists():
        assert run_program(TRAIN, *sweep) == 0
        shutil.copytree(folder, stored / "sweep")
    else:
        shutil.copytree(stored / "sweep", folder)
    return folder


def results(folder: Path) -> dict[str, int]:
    """When each job wrote its result."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_job_of_every_study_composes(study: Path) -> None:
    config.register()
    with initialize_config_dir(str(study.parent), version_base="1.3"):
        # The name has Hydra's own values in it, which only a run has.
        search = [f"hydra.searchpath=[{ROOT / 'conf'}]", "dataset.root=/faces", "name=x"]
        whole = compose(study.stem, search, return_hydra_config=True)
        given = [f"{key}={value}" for key, value in whole.hydra.sweeper.params.items()]
        parsed = OverridesParser.create().parse_overrides(given)
        folders = set()
        for override in parsed:
            for value in override.sweep_string_iterator():
                one = compose(study.stem, [*search, f"{override.key_or_group}={value}"])
                assert config.typed(one, TrainSettings)
                folders.add(str(value))
        assert len(folders) >= 6


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
class TestInOneProcess:
    def test_the_same_sweep_again_does_only_what_is_missing_and_reports(
        self, swept: Path, sweep: list[str], run_program: Callable[..., int]
    ) -> None:
        folder = swept
        first = results(folder)
        assert first.keys() == {"seed0", "seed1"}
        assert "2 detectors" in (folder / "report.html").read_text()
        (folder / "seed1" / "result.json").unlink()
        (folder / "report.html").unlink()
        assert run_program(TRAIN, *sweep) == 0
        second = results(folder)
        assert second["seed0"] == first["seed0"]
        assert second["seed1"] > first["seed1"]
        assert (folder / "report.html").exists()

    def test_each_job_says_its_place_and_only_the_first_what_the_audit_found(
        self,
        sweep: list[str],
        run_program: Callable[..., int],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        for path in (tmp_path / "faces" / "seen").iterdir():
            Image.open(path).convert("L").save(path)  # so format and colours differ
        audited = ["audit=warn" if one == "audit=off" else one for one in sweep]
        assert run_program(TRAIN, *audited) == 0
        said = capfd.readouterr().out
        first, second = said.split("\njob 2 of 2, about 1 min left: seed1\n")
        assert "\njob 1 of 2: seed0\n" in first
        assert "seen / real: format" in first
        assert "seen / real: format" not in second
        closing = second.split("On unseen generators balanced accuracy is ")[1]
        assert closing.splitlines()[-1] == "Report: outputs/sweep/report.html"
        ours = [line for line in said.splitlines() if not line.startswith("\t#")]  # Hydra's
        assert max(map(len, ours)) <= 80

    def test_more_jobs_may_join_a_sweep(
        self, swept: Path, sweep: list[str], run_program: Callable[..., int]
    ) -> None:
        more = ["seed=2" if one == "seed=0,1" else one for one in sweep]
        assert run_program(TRAIN, *more) == 0
        record = json.loads((swept / "sweep.json").read_text())
        assert [job["folder"] for job in record["jobs"]] == ["seed0", "seed1", "seed2"]
        assert "3 detectors" in (swept / "report.html").read_text()

    def test_a_job_that_fails_is_named_first_until_a_smaller_sweep_no_longer_asks_for_it(
        self,
        sweep: list[str],
        run_program: Callable[..., int],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        failing = ["seed=0,-1" if one == "seed=0,1" else one for one in sweep]
        assert run_program(TRAIN, *failing) == 1
        assert "seed must be at least 0" in "".join(capfd.readouterr())
        folder = tmp_path / "outputs" / "sweep"
        report = (folder / "report.md").read_text()
        assert report.startswith("**1 of 2 jobs have no result:**")
        assert "outputs/sweep/seed-1" in report.splitlines()[2]
        smaller = ["seed=1" if one == "seed=0,1" else one for one in sweep]
        assert run_program(TRAIN, *smaller) == 0
        assert results(folder).keys() == {"seed0", "seed1"}
        record = json.loads((folder / "sweep.json").read_text())
        assert [job["folder"] for job in record["jobs"]] == ["seed0", "seed1"]
        assert "no result" not in (folder / "report.md").read_text()
        assert "2 detectors" in (folder / "report.html").read_text()

    @pytest.mark.parametrize(
        ("key", "value"),
        [("model.learning_rate", "0.1"), ("max_epochs", "3"), ("perturb", "[noise]")],
    )
    def test_results_of_other_settings_are_not_taken_for_its_own(
        self,
        key: str,
        value: str,
        swept: Path,
        sweep: list[str],
        run_program: Callable[..., int],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        before = results(swept)
        assert run_program(TRAIN, *sweep, f"{key}={value}") == 1
        said = "".join(capfd.readouterr())
        assert f"outputs/sweep/seed0 holds a run with another {key}" in said
        assert results(swept) == before

    def test_any_setting_may_be_swept_and_makes_the_reports_rows(
        self, sweep: list[str], run_program: Callable[..., int], tmp_path: Path
    ) -> None:
        kept = [one for one in sweep if not one.startswith(("seed=", "batch_size=", "hydra."))]
        swept = ["batch_size=8,4", "model.channels=[2,4],[4,8]", "hydra.sweep.dir=outputs/sweep"]
        assert run_program(TRAIN, *kept, *swept) == 0
        # Folders are numbered by the jobs, in the record as on the disk.
        record = json.loads((tmp_path / "outputs" / "sweep" / "sweep.json").read_text())
        folders = [job["folder"] for job in record["jobs"]]
        assert [folder.partition("_")[0] for folder in folders] == ["0", "1", "2", "3"]
        assert {*folders} == results(tmp_path / "outputs" / "sweep").keys()
        cells = (tmp_path / "outputs" / "sweep" / "cells.csv").read_text()
        assert {row["variant"] for row in csv.DictReader(cells.splitlines())} == {
            f"model.channels={channels}, batch_size={size}"
            for channels in ("[2,4]", "[4,8]")
            for size in (4, 8)
        }

    def test_where_a_run_computes_may_be_swept_too(
        self, sweep: list[str], run_program: Callable[..., int], tmp_path: Path
    ) -> None:
        kept = [one for one in sweep if not one.startswith(("seed=", "hydra."))]
        swept = ["trainer.precision=fp32,bf16", "hydra.sweep.dir=outputs/sweep"]
        assert run_program(TRAIN, *kept, *swept) == 0
        cells = (tmp_path / "outputs" / "sweep" / "cells.csv").read_text()
        variants = {row["variant"] for row in csv.DictReader(cells.splitlines())}
        assert variants == {"trainer.precision=fp32", "trainer.precision=bf16"}

    def test_two_jobs_in_one_folder_are_refused_before_anything_is_trained(
        self,
        sweep: list[str],
        run_program: Callable[..., int],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert run_program(TRAIN, *sweep, "preprocess=none,blur") == 1
        assert "Two jobs of the sweep would share the folder seed0" in capfd.readouterr().err
        assert not list((tmp_path / "outputs").rglob("result.json"))


def training(folder: Path) -> psutil.Process | None:
    """The process that holds a file of a run's folder open."""
    for process in psutil.Process().children(recursive=True):
        try:
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                return process
        except psutil.Error:
            continue
    return None


@pytest.mark.slow
class TestLaunchers:
    def test_a_killed_job_leaves_the_others_running_and_is_the_only_one_done_again(
        self, sweep: list[str], tmp_path: Path
    ) -> None:
        folder = tmp_path / "outputs" / "sweep"
        joblib = [*sweep, "hydra/launcher=joblib", "max_epochs=25"]
        process = started(TRAIN, *joblib, "hydra.launcher.n_jobs=2")
        victim = None
        while victim is None and process.poll() is None:
            time.sleep(0.1)
            victim = training(folder / "seed1")
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 1, said
        first = results(folder)
        assert first.keys() == {"seed0"}
        assert re.search(r"outputs/sweep/seed1 failed: .*SIGKILL", said)
        assert "SIGKILL" in json.loads((folder / "seed1" / "failed.json").read_text())["error"]
        assert "SIGKILL" in (folder / "report.md").read_text().splitlines()[2]

        # One at a time, joblib starts no processes of its own.
        process = started(TRAIN, *joblib, "hydra.launcher.n_jobs=1")
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        second = results(folder)
        assert second.keys() == {"seed0", "seed1"}
        assert second["seed0"] == first["seed0"]
        assert not (folder / "seed1" / "failed.json").exists()
        assert "no result" not in (folder / "report.md").read_text()

    def test_submitit_runs_jobs_as_a_cluster_would(self, sweep: list[str], tmp_path: Path) -> None:
        local = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
        process = started(TRAIN, *sweep, *local)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert results(tmp_path / "outputs" / "sweep").keys() == {"seed0", "seed1"}
        assert (tmp_path / "outputs" / "sweep" / "report.html").exists()
