"""Completion of a command line in a shell, as argcomplete asks for it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from forensics import config
from forensics.launch.completion import completer
from forensics.programs import CONF

ROOT = Path(__file__).parents[1]


def completed(prefix: str, *before: str, program: str = "train") -> list[str]:
    return completer(CONF, program)(prefix, SimpleNamespace(settings=list(before)))


def test_groups_keys_and_options() -> None:
    assert completed("see") == ["seed="]
    assert completed("preprocess=no") == ["preprocess=noise", "preprocess=none"]
    assert completed("preprocess=none,noi") == ["preprocess=none,noise"]
    assert completed("dataset.train_c") == ["dataset.train_count="]
    assert completed("nothing") == []
    assert completed("generator=dc", program="generate") == ["generator=dcgan"]
    assert completed("dataset.ro", program="generate") == ["dataset.root="]
    assert completed("detector", program="evaluate") == ["detector="]


@pytest.mark.parametrize("model", ["dcgan_discriminator", "dct_ridge", "residual_patches"])
def test_the_keys_of_an_option_are_those_of_its_settings(model: str) -> None:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("train", [f"model={model}"])
    expected = {f"model.{key}=" for key in settings.model}
    assert set(completed("model.", f"model={model}")) == expected


def test_an_unknown_option_has_no_keys() -> None:
    assert completed("model.", "model=of_a_plug_in") == []


@pytest.mark.parametrize(
    ("command", "line", "expected"),
    [
        (["train.py"], "train.py see", {"seed="}),
        (["-m", "forensics.cli"], "forensics train preprocess=noi", {"noise"}),
        (["-m", "forensics.cli"], "forensics pre", {"prepare", "predict"}),
    ],
)
def test_a_shell_is_answered_without_slow_imports(
    command: list[str], line: str, expected: set[str], tmp_path: Path
) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\v",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {word.strip() for word in answer.read_text().split("\v")} == expected
    imported = {text.rpartition("|")[2].strip() for text in done.stderr.splitlines()}
    assert "argcomplete" in imported
    assert not {"torch", "hydra", "pyarrow"} & imported
