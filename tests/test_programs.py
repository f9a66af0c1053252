"""The programs outside a clone: the installed package, and Python."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import forensics
from forensics.data.settings import DatasetSettings
from forensics.errors import UserError
from forensics.programs import CONF
from forensics.runs import read_result

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent for path in (ROOT / "forensics").rglob("__init__.py")]
    names = [".".join(folder.relative_to(ROOT).parts) for folder in found]
    assert sorted(listed) == sorted([*names, "forensics.conf"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as built and installed by pip, without its requirements."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("forensics", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(source / "dist"), str(source)]
    subprocess.run([*pip, *wheel], check=True)
    (built,) = (source / "dist").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(built)], check=True)
    return site


@pytest.mark.slow
class TestInstalled:
    def test_it_has_every_file_of_conf_and_no_other_package(self, installed: Path) -> None:
        theirs = {path.relative_to(installed / "forensics") for path in installed.rglob("*.yaml")}
        assert theirs == {path.relative_to(ROOT) for path in CONF.rglob("*.yaml")}
        packages = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
        assert packages == {"forensics", "bin"}

    def test_the_command_trains_and_says_how_to_go_on(
        self, installed: Path, arguments: list[str], tmp_path: Path
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(installed)}

        def run(*given: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(installed / "bin" / "forensics"), *given]
            return subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True
            )

        done = run("train", *arguments, "max_epochs=1", "audit=off", "name=x")
        assert done.returncode == 0, done.stderr
        assert read_result(tmp_path / "outputs" / "x")["versions"]["forensics"] == "0.1.0"
        done = run("train", "sed=1")
        assert done.returncode == 1
        assert "There is no setting sed" in done.stderr
        assert "forensics train" in run("train", "--help").stdout


class TestFromPython:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.slow
    def test_train_returns_the_result_and_leaves_no_trace_in_the_process(
        self, arguments: list[str], tmp_path: Path
    ) -> None:
        started = {key for key in os.environ if not key.startswith("PL_")}

        def state() -> list[object]:
            return [
                GlobalHydra.instance().is_initialized(), HydraConfig.instance().cfg, sys.argv[:],
                logging.getLogger().handlers[:],
                # Lightning sets some for the processes that it starts.
                {key: value for key, value in os.environ.items() if key in started},
                *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)),
            ]  # fmt: skip

        before = state()
        result = forensics.train([*arguments, "max_epochs=1", "audit=off", "name=x", "seed=3"])
        assert result == read_result(tmp_path / "outputs" / "x")
        assert result["settings"]["seed"] == 3
        with pytest.raises(UserError, match="outputs/x has a complete run"):
            forensics.train([*arguments, "name=x"])
        longer = forensics.train(["resume=outputs/x", "max_epochs=2"])
        assert longer["settings"]["max_epochs"] == 2
        assert longer["settings"]["seed"] == 3
        assert state() == before
        detector = forensics.Detector.load("outputs/x")
        assert detector.predict(sorted((tmp_path / "faces" / "real").iterdir())[0])[0].verdict

    @pytest.mark.slow
    def test_the_notebook_runs(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        notebook = json.loads((ROOT / "docs" / "quick_start.ipynb").read_text())
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
        # Fewer images, which take long to render.
        few = ["dataset.train_count=40", "dataset.test_count=10", "max_epochs=1", "trainer=cpu"]
        train = forensics.train
        monkeypatch.setattr(forensics, "train", lambda given: train([*given, *few]))
        names: dict[str, object] = {}
        for cell in cells:
            exec("".join(cell["source"]), names)
        out = capsys.readouterr().out
        assert re.search(r"demo_pggan +seen +TPR \d\.\d\d  TNR \d\.\d\d\n", out)
        assert re.search(r"demo_dcgan +unseen +TPR", out)
        assert len(re.findall(r"\.png (real|generated|unsure) \d\.\d+", out)) == 3

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("sed=1", "There is no setting sed"),
            ("seed=1,2", "seed=1,2 has several values"),
            ("preprocess=nois", "preprocess=nois is unknown"),
            ("no sense", "Cannot read 'no sense'"),
            ("seed=-1", "seed"),
            ("-m", "-m: give settings"),
            ("resume=nowhere", "resume=nowhere is not a run folder"),
        ],
    )
    def test_an_error_is_a_sentence(
        self, override: str, said: str, faces: Callable[..., DatasetSettings]
    ) -> None:
        with pytest.raises(UserError) as raised:
            forensics.train([override])
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
        assert not GlobalHydra.instance().is_initialized()
        assert not Path("outputs").exists()


def test_the_package_imports_at_once() -> None:
    program = "import sys, forensics, forensics.cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert {"forensics", "argparse"} <= set(done.stdout.split())
    assert not {"torch", "hydra", "pyarrow", "omegaconf"} & set(done.stdout.split())


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="detector"):
        _ = forensics.detector
