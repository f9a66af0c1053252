"""A folder belongs to one run: the one of several processes that came first."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import started
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from forensics import config, runs
from forensics.compute import Precision
from forensics.errors import UserError
from forensics.launch.entry import PastHydra
from forensics.launch.folders import OwnFolder
from forensics.training.settings import TrainerSettings
from forensics.training.trainer import take_rank

ROOT = Path(__file__).parents[1]
TRAIN, GENERATE = ROOT / "train.py", ROOT / "generate.py"


@pytest.fixture
def composed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., DictConfig]]:
    """Compose a program's config, as Hydra does before it begins a run, always in one second."""
    monkeypatch.chdir(tmp_path)
    config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        OmegaConf.register_new_resolver("now", lambda _: "now", replace=True)
        yield lambda program, *given: compose(program, list(given), return_hydra_config=True)
    OwnFolder.sweep.close()
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("program", ["train", "generate", "evaluate"])
class TestDefault:
    def test_folders_of_one_second_are_three(
        self, program: str, composed: Callable[..., DictConfig]
    ) -> None:
        names = []
        for _ in range(3):
            one = composed(program)
            OwnFolder().on_run_start(one)
            names.append(one.name)
            assert one.hydra.run.dir == f"outputs/{one.name}"
            assert Path(one.hydra.run.dir).is_dir()
        assert names[1:] == [f"{names[0]}_2", f"{names[0]}_3"]

    def test_folders_of_sweeps_are_too(
        self, program: str, composed: Callable[..., DictConfig]
    ) -> None:
        folders = set()
        for _ in range(2):
            one = composed(program)
            OwnFolder().on_multirun_start(one)
            folders.add(one.hydra.sweep.dir)
            assert one.hydra.overrides.hydra[-1] == f'hydra.sweep.dir="{one.hydra.sweep.dir}"'
        assert len(folders) == 2

    def test_no_folder_is_made_for_a_name_that_leads_elsewhere(
        self, program: str, composed: Callable[..., DictConfig]
    ) -> None:
        for name in ("~", "a/../../b"):
            with pytest.raises(PastHydra) as raised:
                OwnFolder().on_run_start(composed(program, f"name='{name}'"))
            assert getattr(raised.value.error, "key", None) == "name"
        assert not list(Path().iterdir())

    @pytest.mark.parametrize("given", ["name=x", "hydra.run.dir=outputs/x"])
    def test_but_a_given_one_is_kept(
        self, given: str, program: str, composed: Callable[..., DictConfig]
    ) -> None:
        for _ in range(2):
            one = composed(program, given)
            OwnFolder().on_run_start(one)
            assert one.hydra.run.dir == "outputs/x"

    def test_the_home_folder_is_written_as_in_a_shell(
        self,
        program: str,
        composed: Callable[..., DictConfig],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        one = composed(program, 'hydra.run.dir="~/x"', 'hydra.sweep.dir="~/y"')
        OwnFolder().on_run_start(one)
        OwnFolder().on_multirun_start(one)
        assert one.hydra.run.dir == str(tmp_path / "home" / "x")
        assert one.hydra.sweep.dir == str(tmp_path / "home" / "y")
        assert not (tmp_path / "~").exists()


HOLD = """
import sys
from pathlib import Path
from forensics import runs
with runs.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Context in which another process has a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


class TestLocked:
    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        with held(tmp_path) as process:
            yield process

    def test_folders_are_refused(self, holder: subprocess.Popen[str], tmp_path: Path) -> None:
        with pytest.raises(UserError, match="in use") as raised, runs.locked(tmp_path):
            pass
        assert raised.value.key == str(tmp_path)

    def test_folders_are_free_once_their_process_is_killed(
        self, holder: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        holder.kill()
        holder.wait()
        with runs.locked(tmp_path):
            pass

    def test_a_sweep_in_a_folder_whose_sweep_runs_is_refused(
        self,
        holder: subprocess.Popen[str],
        tmp_path: Path,
        composed: Callable[..., DictConfig],
    ) -> None:
        with pytest.raises(PastHydra) as raised:
            OwnFolder().on_multirun_start(composed("train", f"hydra.sweep.dir={tmp_path}"))
        assert isinstance(raised.value.__cause__, UserError)

    @pytest.mark.parametrize("program", [TRAIN, GENERATE])
    @pytest.mark.parametrize("name", ["x", "über=(1)"])
    def test_a_run_in_a_folder_whose_run_goes_on_is_refused(
        self,
        name: str,
        program: Path,
        arguments: list[str],
        run_program: Callable[..., int],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        given = arguments if program == TRAIN else ["dataset.root=faces", "real=real"]
        folder = tmp_path / "outputs" / name
        with held(folder):
            assert run_program(program, *given, f"name={name}") == 1
        assert f"outputs/{name} is in use by another process" in capfd.readouterr().err
        assert [path.name for path in folder.iterdir()] == [runs.LOCK]


@pytest.mark.slow
class TestAtOnce:
    def test_runs_of_one_second_keep_their_own_results(
        self, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        rates = ("1e-3", "1e-4")
        # One name for both: as if started in the same second.
        same = ["audit=off", "name=${now:same}"]
        both = [started(TRAIN, *arguments, *same, f"model.learning_rate={rate}") for rate in rates]
        for process in both:
            said, _ = process.communicate(timeout=250)
            assert process.returncode == 0, said
        results = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/result.json")]
        assert {one["settings"]["model"]["learning_rate"] for one in results} == {1e-3, 1e-4}
        assert {one["settings"]["name"] for one in results} == {"same", "same_2"}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
class TestRanks:
    """Variables of a scheduler, which are not about this process's only device."""

    @pytest.fixture(params=["SLURM_PROCID", "LOCAL_RANK", "RANK", "all"])
    def ranked(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        everything = {
            "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "7",
            "LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "4",
        }  # fmt: skip
        for name, value in everything.items():
            if request.param in (name, "all"):
                monkeypatch.setenv(name, value)
        # As Lightning does when it is imported.
        runs.take_rank(1)

    def test_a_run_on_one_device_is_whole_and_safe(
        self,
        ranked: None,
        arguments: list[str],
        run_program: Callable[..., int],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert run_program(TRAIN, *arguments, "audit=off", "name=x") == 0
        folder = tmp_path / "outputs" / "x"
        before = (folder / "result.json").read_bytes()
        assert "Run folder: outputs/x" in capfd.readouterr().out
        assert list(folder.glob("events*"))
        assert (folder / ".hydra" / "config.yaml").exists()
        assert run_program(TRAIN, *arguments, "audit=off", "name=x") == 1
        assert "outputs/x has a complete run" in capfd.readouterr().err
        assert (folder / "result.json").read_bytes() == before

    def test_a_generator_writes_its_images(
        self, ranked: None, arguments: list[str], run_program: Callable[..., int], tmp_path: Path
    ) -> None:
        tiny = ["dataset.root=faces", "real=real", "dataset.image_size=16", "generator.width=4",
                "steps_per_epoch=2", "max_epochs=1", "batch_size=4", "images=3", "trainer=cpu",
                "generator.latent_size=4", "cache_dir=cache", "name=x"]  # fmt: skip
        assert run_program(GENERATE, *tiny) == 0
        assert len(list((tmp_path / "faces" / "dcgan").glob("*.png"))) == 3
        assert (tmp_path / "outputs" / "x" / "result.json").exists()


def test_a_launcher_that_sets_no_ranks_has_started_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    take_rank(TrainerSettings("cpu", 2, 1, Precision.fp32, channels_last=False))
    assert runs.on_first_device()
