"""What a run's folder can say to a command that resumes or samples it: settings, nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from forensics.errors import UserError
from forensics.launch.resume import resumed_arguments
from forensics.model_files import save_model

ROOT = Path(__file__).parents[1]
PROGRAM = {"resume": ROOT / "train.py", "sample": ROOT / "generate.py"}

TRAINING: dict[str, Any] = {
    "model": {"channels": [4, 8]},
    "preprocess": {},
    "dataset": {"root": "faces", "folders": {"a.b": "/x"}, "image_size": 16},
    "seed": 3,
}
GENERATING: dict[str, Any] = {
    "generator": {"width": 4},
    "dataset": {"root": "faces", "image_size": 16},
    "real": "real",
}
CHOICES = {"model": "dcgan_discriminator", "preprocess": "none", "generator": "dcgan"}


@pytest.fixture(params=["resume", "sample"])
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def record(tmp_path: Path, key: str) -> Callable[..., Path]:
    """Write a run's record, with changes to one of its files."""

    def write(config: dict[str, Any] | None = None, choices: dict[str, str] | None = None,
              overrides: list[str] | None = None) -> Path:  # fmt: skip
        folder = tmp_path / "outputs" / "downloaded"
        (folder / ".hydra").mkdir(parents=True)
        usual = TRAINING if key == "resume" else GENERATING
        contents = {
            "config": usual | (config or {}),
            "hydra": {"hydra": {"runtime": {"choices": CHOICES | (choices or {})}}},
            "overrides": overrides or [],
        }
        for name, content in contents.items():
            (folder / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return folder

    return write


@pytest.fixture
def started(
    key: str, run_program: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the program on the folder, which must refuse it; returns its sentence."""

    def run(folder: Path, *more: str) -> str:
        assert run_program(PROGRAM[key], f"{key}={folder}", *more) == 1
        assert not (tmp_path / "executed").exists()
        err = capfd.readouterr().err
        assert "Traceback" not in err
        return err

    return run


class TestCode:
    """Each way of a folder to name code, a class or a place: nothing of it is used."""

    @pytest.mark.parametrize("override", [
        "+hydra.callbacks.evil._target_=joblib.load",
        "hydra.callbacks.evil._target_=joblib.load",
        "++hydra.sweeper._target_=joblib.load",
        "hydra/launcher=joblib",
        "hydra.searchpath=[/evil]",
        "~hydra.callbacks.folder",
        "~audit",
        "+model._target_=torch.load",
        "dataset={_target_:torch.load}",
    ])  # fmt: skip
    def test_in_the_overrides(
        self, override: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        assert override in started(record(overrides=["seed=0", override]))

    def test_in_the_values_as_hydras_own_settings(
        self, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        assert "has hydra" in started(
            record({"hydra": {"callbacks": {"evil": {"_target_": "os.mkdir"}}}})
        )

    @pytest.mark.parametrize(
        "name", ["defaults", "_target_", "callbacks", "detector", "seed=0 hydra"]
    )
    def test_in_values_that_are_no_settings(
        self, name: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        assert f"has {name}" in started(record({name: ["/evil"]}))

    def test_below_a_group(
        self, key: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        group = "model" if key == "resume" else "generator"
        assert f"{group}._target_" in started(record({group: {"_target_": "torch.load"}}))

    @pytest.mark.parametrize("group", ["model", "generator", "dataset", "trainer"])
    def test_as_another_option_instead_of_a_groups_settings(
        self, group: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        assert f"has {group}=../evil" in started(record({group: "../evil"}))

    @pytest.mark.parametrize(
        "choice", ["../../evil", "/evil", "a/b", "dcgan,wgan_gp", "", "a.yaml"]
    )
    def test_as_an_option_elsewhere(
        self, choice: str, key: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        group = "model" if key == "resume" else "generator"
        assert f"has {group}={choice}" in started(record(choices={group: choice}))

    @pytest.mark.parametrize(
        "value",
        ["${oc.env:HOME}", "a ${hydra:runtime.cwd}", "${now:%Y}", "${oc.${real}:HOME}",
         "${oc.env\n:HOME}"],
    )  # fmt: skip
    def test_as_a_value_that_is_computed(
        self, value: str, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        assert " ".join(value.split()) in started(record({"cache_dir": value, "real": "env"}))

    def test_as_a_value_that_is_put_together(
        self, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        parts = {"cache_dir": "${logger}${real}", "logger": "$", "real": "{oc.env:HOME}"}
        assert "has the value ${oc.env:HOME}" in started(record(parts))

    def test_in_yaml(
        self, record: Callable[..., Path], started: Callable[..., str], tmp_path: Path
    ) -> None:
        folder = record()
        (folder / ".hydra" / "config.yaml").write_text(
            f"seed: !!python/object/apply:os.mkdir [{tmp_path}/executed]\n"
        )
        assert "config.yaml cannot be read" in started(folder)

    def test_as_a_pickle_that_a_process_of_another_device_would_load(
        self, record: Callable[..., Path], started: Callable[..., str]
    ) -> None:
        folder = record()
        (folder / ".hydra" / "config.pickle").write_bytes(b"cos\nmkdir\n(S'executed'\ntR.")
        shutil.copy(folder / ".hydra" / "config.pickle", folder)
        started(folder, "dataset.root=nowhere", "trainer=cpu", "trainer.devices=2")

    def test_as_a_plug_in(
        self, record: Callable[..., Path], started: Callable[..., str], tmp_path: Path
    ) -> None:
        (tmp_path / "evil.py").write_text("import os\nos.mkdir('executed')\n")
        assert "plugin=evil: add it" in started(record({"plugin": "evil"}))

    def test_as_a_config_folder(
        self, record: Callable[..., Path], started: Callable[..., str], tmp_path: Path
    ) -> None:
        (tmp_path / "model").mkdir()
        call = f"_target_: os.mkdir\npath: {tmp_path}/executed\n"
        (tmp_path / "train.yaml").write_text(f"hydra:\n  callbacks:\n    evil:\n      {call}")
        folder = record()
        hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())
        hydra["hydra"]["runtime"]["config_sources"] = [
            {"path": str(tmp_path), "schema": "file", "provider": "command-line"}
        ]
        hydra["hydra"]["job"] = {"config_name": "train"}
        (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
        started(folder, "dataset.root=nowhere")  # refused for that alone

    def test_as_the_hubs_generator(
        self, key: str, record: Callable[..., Path], started: Callable[..., str], tmp_path: Path
    ) -> None:
        if key == "resume":
            pytest.skip("a run of generate.py")
        (tmp_path / "hubconf.py").write_text("import os\nos.mkdir('executed')\n")
        settings = {"repository": str(tmp_path), "model_name": "x"}
        folder = record({"generator": settings}, {"generator": "hub_pggan"})
        assert "generator=hub_pggan" in started(folder)

    def test_as_a_generators_file(
        self, key: str, record: Callable[..., Path], started: Callable[..., str], tmp_path: Path
    ) -> None:
        if key == "resume":
            pytest.skip("a run of generate.py")
        (tmp_path / "hubconf.py").write_text("import os\nos.mkdir('executed')\n")
        settings = {"repository": str(tmp_path), "model_name": "x"}
        network = {"name": "hub_pggan", "settings": settings, "image_size": 16}
        folder = record()
        save_model(folder / "generator.safetensors", torch.nn.Linear(1, 1), {"network": network})
        assert "hub_pggan" in started(folder)


class TestSettings:
    @pytest.fixture
    def key(self) -> str:
        return "resume"

    def test_are_one_more_config_and_the_command_lines_come_after(
        self, record: Callable[..., Path]
    ) -> None:
        folder = record({"name": "x_${seed}", "resume": "elsewhere"})
        given = resumed_arguments([f"resume={folder}", "max_epochs=4"])
        assert given[:2] == ["--config-name", "resumed"]
        assert {*given[2:]} == {
            f"resume={folder}", "max_epochs=4", f'hydra.run.dir="{folder}"', 'name="downloaded"',
        }  # fmt: skip
        assert resumed_arguments(given) == given  # by a process of another device

    def test_of_nothing_to_resume_are_the_command_lines(self) -> None:
        assert resumed_arguments(["seed=1"]) == ["seed=1"]
        assert resumed_arguments(["resume=null", "-m"]) == ["resume=null", "-m"]

    def test_may_be_in_the_home_folder(
        self, record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        record()
        monkeypatch.setenv("HOME", str(tmp_path))
        given = resumed_arguments(['resume="~/outputs/downloaded"'])
        assert f'hydra.run.dir="{tmp_path}/outputs/downloaded"' in given

    @pytest.mark.parametrize("file", ["config.yaml", "hydra.yaml", "overrides.yaml"])
    @pytest.mark.parametrize("content", [None, "", "[", "5", "- 1", "a: 1"])
    def test_that_are_damaged_are_refused(
        self, file: str, content: str | None, record: Callable[..., Path]
    ) -> None:
        path = record() / ".hydra" / file
        path.unlink()
        if content is not None:
            path.write_text(content)
        if (file, content) in {("overrides.yaml", ""), ("overrides.yaml", "- 1"),
                               ("overrides.yaml", "a: 1")}:  # fmt: skip
            return  # says nothing
        with pytest.raises(UserError, match="resume"):
            resumed_arguments([f"resume={path.parents[1]}"])

    def test_do_not_go_on_in_another_folder(self, record: Callable[..., Path]) -> None:
        with pytest.raises(UserError, match=r"hydra\.run\.dir"):
            resumed_arguments([f"resume={record()}", "hydra.run.dir=elsewhere"])

    @pytest.mark.parametrize("option", ["-m", "--multirun", "--cfg", "nothing"])
    def test_are_the_only_further_arguments(self, option: str, record: Callable[..., Path]) -> None:
        with pytest.raises(UserError, match=option):
            resumed_arguments([option, f"resume={record()}"])

    def test_of_an_option_of_the_users_need_its_folder(self, record: Callable[..., Path]) -> None:
        given = [f"resume={record()}", "--config-dir", "conf", "-cd=more"]
        assert resumed_arguments(given)[2:5] == ["--config-dir", "conf", "-cd=more"]
