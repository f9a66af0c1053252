"""Names and paths on a command line mean what was typed."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from forensics.launch.arguments import as_typed

ODD = [
    "1_000", "1e3", "0x10", "true", "NULL", "nan", "00000", "-rf", "über", "a=b", "a(b)", "o'neil",
    'say "x"', "back\\slash", "a b", "生成", "pg$x^2$", "~/faces", "C:\\x\\", "a:b",
]  # fmt: skip


def read(argument: str) -> Any:  # noqa: ANN401
    """What Hydra reads."""
    (override,) = OverridesParser.create().parse_overrides(as_typed([argument]))
    return override.value()


@pytest.mark.parametrize("text", [one for one in ODD if one != "NULL"])
def test_a_text_is_read_as_typed(text: str) -> None:
    assert read(f"dataset.root={text}") == text


@pytest.mark.parametrize("key", ["name", "cache_dir", "resume", "sample", "source", "hydra.run.dir",
                                 "hydra.sweep.dir", "generator.repository", "detector", "plugin",
                                 "++real", "+name"])  # fmt: skip
def test_every_text_is(key: str) -> None:
    assert read(f"{key}=~/1=(ü)") == "~/1=(ü)"


def test_a_config_folder_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert as_typed(["--config-dir=~/c", "--config-dir=c"]) == [
        "--config-dir=/h/c",
        "--config-dir=c",
    ]


@pytest.mark.parametrize("key", ["resume", "sample"])
def test_a_folder_that_is_never_swept_may_have_commas(key: str) -> None:
    assert read(f"{key}=/a,b (c)") == "/a,b (c)"


@pytest.mark.parametrize("text", [one for one in ODD if not set(one) & set("\"'")])
def test_so_are_the_elements_of_a_list(text: str) -> None:
    assert read(f"dataset.real=[utk,{text}, lfw]") == ["utk", text, "lfw"]


@pytest.mark.parametrize("text", [one for one in ODD if not set(one) & set("\"'")])
def test_and_the_folder_of_a_source(text: str) -> None:
    assert read(f"dataset.folders.utk={text}") == text


@pytest.mark.parametrize("name", ["sd1.5", "utk", "a b", "1_0", "a(b)"])
@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_source_may_have_dots_in_its_name(name: str, plus: str) -> None:
    (override,) = OverridesParser.create().parse_overrides(
        as_typed([f"{plus}dataset.folders.{name}=/x"])
    )
    folders = {override.key_or_group.rpartition(".")[2]: override.value()}
    assert {name: "/x"} in (folders, override.value())


@pytest.mark.parametrize("given", [
    "name=null", "resume=null", "name='1_0'", "seed=1_0", "-m", "--cfg", "model.channels=[1_0]",
    "name=x_${seed}", "dataset.root=${oc.env:HOME}", "name=a,b", "monitor=val/loss,val/auroc",
    "dataset.train_on=[a],[b,c]", "name=choice(a,b)", "dataset.real=['1_0',b]", "~perturb",
])  # fmt: skip
def test_what_hydra_reads_rightly_is_left_to_it(given: str) -> None:
    assert as_typed([given]) == [given]


def test_names_like_numbers_may_be_swept() -> None:
    assert as_typed(["name=1_0,x", "dataset.train_on=[1_0],[x]"]) == [
        'name="1_0",x', 'dataset.train_on=["1_0"],[x]'
    ]  # fmt: skip


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    once = as_typed([f"name={tmp_path}/ü", "dataset.real=[1_0]", "dataset.root=~/x"])
    assert as_typed(once) == once
