"""Detectors from outside the package, as a user installs or names them."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from forensics.cli import main
from forensics.detectors import DETECTORS, plugins
from forensics.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN, EVALUATE = ROOT / "train.py", ROOT / "evaluate.py"
PLUGIN = Path(__file__).parent / "fixtures" / "plugin"

pytestmark = pytest.mark.usefixtures("undrawn")

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds to the detectors, and imports, is gone afterwards."""
    detectors, path = dict(DETECTORS), list(sys.path)
    yield
    DETECTORS.clear()
    DETECTORS.update(detectors)
    plugins.PLUGINS.clear()
    sys.path[:] = path
    sys.modules.pop("toy_detectors", None)
    importlib.invalidate_caches()


@pytest.fixture
def run(arguments: list[str], run_program: Run) -> Run:
    """Run train.py on the tiny data set, without the settings of the paper's detector."""
    usual = [one for one in arguments if not one.startswith("model.")]

    def train(*more: str) -> int:
        keys = {one.partition("=")[0] for one in more}
        kept = [one for one in usual if one.partition("=")[0] not in keys]
        return run_program(TRAIN, *kept, "audit=off", *more)

    return train


@pytest.fixture
def module(tmp_path: Path) -> str:
    """A module beside the user's data."""
    shutil.copy(PLUGIN / "toy_detectors.py", tmp_path)
    return "toy_detectors"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where the plug-in is installed, not yet on the path."""
    project, target = tmp_path / "project", tmp_path / "site"
    shutil.copytree(PLUGIN, project)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *offline, str(project)], check=True)
    return target


def scores_of(folder: Path) -> dict[tuple[str, str], float]:
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    return {(row["source"], row["path"]): row["logit"] for row in rows}


def predicted(folder: Path, root: Path, *more: str) -> dict[tuple[str, str], float]:
    """What ``forensics predict`` gives the images that a run scored."""
    names = [str(root / source / path) for source, path in scores_of(folder)]
    assert main(["predict", str(folder), *names, "-o", str(folder / "p.csv"), *more]) == 0
    with (folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(Path(row["path"]).parent.name, Path(row["path"]).name): float(row["logit"])
            for row in rows}  # fmt: skip


def only_float32(values: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    import numpy as np

    return {key: float(np.float32(value)) for key, value in values.items()}


@pytest.mark.slow
def test_an_installed_detector_is_trained_scored_evaluated_exported_and_reported(
    site: Path, run: Run, run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as installed:
        installed.syspath_prepend(site)
        assert run("model=log_spectrum", "model.learning_rate=0.01", "name=x") == 0
        folder = tmp_path / "outputs" / "x"
        result = json.loads((folder / "result.json").read_text())
        assert result["model"] == "log_spectrum"
        assert result["settings"]["model"]["learning_rate"] == 0.01
        assert not (folder / "features.parquet").exists()
        assert only_float32(predicted(folder, tmp_path / "faces")) == scores_of(folder)

        capfd.readouterr()
        command = ["predict", str(folder), str(tmp_path / "faces"), "-o", "e.csv"]
        assert main([*command, "--explain", "ex"]) == 1
        assert "--explain" in capfd.readouterr().err
        assert not list(tmp_path.glob("e.csv*"))

        assert main(["export", str(folder), "--format", "torch-export"]) == 0
        assert "A log_spectrum" in (folder / "export" / "README.md").read_text()
        of_faces = [f"dataset.root={tmp_path}/faces", "dataset.real=[real]",
                    "dataset.generators=[unseen]", f"cache_dir={tmp_path}/cache"]  # fmt: skip
        given = ["dataset=paper", *of_faces, f"detector={folder}", "name=e"]
        assert run_program(EVALUATE, *given) == 0
        for reported in (folder, tmp_path / "outputs" / "e"):
            assert main(["report", str(reported)]) == 0
            page = (reported / "report.html").read_text()
            assert "log_spectrum" in page
            assert "Feature space" not in page
    DETECTORS.pop("log_spectrum")
    capfd.readouterr()
    assert main(["predict", str(folder), str(tmp_path / "faces"), "-o", "e.csv"]) == 1
    said = capfd.readouterr().err
    assert "log_spectrum" in said
    assert "install toy-detectors" in said


@pytest.mark.slow
def test_a_one_class_detector_of_a_named_module_works_without_any_generator(
    module: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["model=mean_colour", "dataset.train_on=[]", "max_epochs=1", "name=x"]
    assert run(f"plugin={module}", *given) == 0
    folder = tmp_path / "outputs" / "x"
    result = json.loads((folder / "result.json").read_text())
    assert list(result["thresholds"]) == ["source_0.05", "source_0.01"]
    assert result["temperature"] is result["validation"]["auroc"] is None
    assert result["validation"]["reason"]
    for pair in result["pairs"]:
        assert pair["ranking"]["auroc"] is not None
        assert pair["ranking"]["ece"] is None
        assert pair["ranking"]["ece_reason"]
    with_module = predicted(folder, tmp_path / "faces", "--plugin", module)
    assert only_float32(with_module) == scores_of(folder)
    with (folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["probability_real"] for row in rows} == {""}
    assert {row["verdict"] for row in rows} <= {"real", "generated", "unsure"}
    assert main(["report", str(folder)]) == 0
    assert "real images alone" in (folder / "report.html").read_text()
    assert "threshold at 5 % FPR" in "".join(capfd.readouterr())


def test_a_paper_detector_without_generators_is_refused(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("dataset.train_on=[]") == 1
    assert "dataset.train_on" in capfd.readouterr().err


@pytest.mark.slow
def test_scores_of_any_scale_are_calibrated_and_their_run_reported(
    module: str, run: Run, tmp_path: Path
) -> None:
    given = ["model=mean_colour", "max_epochs=1", "name=x"]
    assert run(f"plugin={module}", *given) == 0
    folder = tmp_path / "outputs" / "x"
    result = json.loads((folder / "result.json").read_text())
    # Minus a squared distance: where both classes are equally likely lies well below 0.
    assert result["offset"] < -1
    assert main(["report", str(folder)]) == 0


@pytest.mark.slow
def test_a_detector_projects_its_weights_after_each_step(
    module: str, run: Run, tmp_path: Path
) -> None:
    given = ["model=reconstruction", "model.learning_rate=0.1", "max_epochs=2", "name=x"]
    assert run(f"plugin={module}", *given, "dataset.train_on=[]") == 0
    tensors = load_file(tmp_path / "outputs" / "x" / "detector.safetensors")
    # Images are brighter on average than the projection allows.
    assert tensors["image"].max() == 0.25


@pytest.mark.slow
@pytest.mark.usefixtures("module")
def test_a_resumed_run_asks_for_its_module_and_imports_none_by_itself(
    run: Run, run_program: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["model=log_spectrum", "max_epochs=1", "name=x"]
    assert run("plugin=toy_detectors", *given) == 0
    sys.modules.pop("toy_detectors")
    resume = ["resume=outputs/x", "max_epochs=2"]
    assert run_program(TRAIN, *resume) == 1
    assert "plugin=toy_detectors" in capfd.readouterr().err
    assert "toy_detectors" not in sys.modules
    assert run_program(TRAIN, *resume, "plugin=toy_detectors") == 0
    result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
    assert result["settings"]["max_epochs"] == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "key"),
        [
            (["model=mean_colour", "patience=1"], "patience"),
            (["model=reconstruction", "monitor=val/auroc", "dataset.train_on=[]"], "monitor"),
        ],
    )
    def test_an_epoch_chosen_by_a_metric_that_the_run_lacks(
        self, module: str, run: Run, given: list[str], key: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(f"plugin={module}", *given) == 1
        (said,) = capfd.readouterr().err.strip().splitlines()
        assert said.startswith(f"{key} must")

    def test_a_module_that_is_not_there(self, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
        assert run("plugin=nowhere", "model=log_spectrum") == 1
        assert re.search(r"plugin=nowhere cannot be used .*nowhere", capfd.readouterr().err)

    @pytest.mark.parametrize(
        ("code", "named"),
        [
            ("", "DETECTORS"),
            ("DETECTORS = {'x': 3}", "x"),
            ("class X: pass\nDETECTORS = {'x': X}", "build"),
            ("DETECTORS = {'dcgan_discriminator': 3}", "dcgan_discriminator"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_module_without_usable_detectors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, named: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "broken_plugin.py").write_text(code)
        before: dict[str, Any] = dict(DETECTORS)
        try:
            with pytest.raises(UserError, match=named):
                plugins.load_module("broken_plugin")
        finally:
            sys.modules.pop("broken_plugin", None)
        assert before == DETECTORS

    def test_an_unknown_model_still_says_which_there_are(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("model=nothing") == 1
        assert "dcgan_discriminator" in capfd.readouterr().err
