"""Sources of a data set by its layout: names, folders, roles and pairs; and training on them."""

from __future__ import annotations

import io
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_images
from PIL import Image

from forensics.cli import main
from forensics.data.ingest.found import found_sources
from forensics.errors import UserError

TRAIN = Path(__file__).parents[1] / "train.py"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Make a data set with two images in each of some folders."""

    def make(*folders: str) -> Path:
        for seed, folder in enumerate(folders):
            write_images(tmp_path / "set" / folder, 2, seed)
        return tmp_path / "set"

    return make


def test_real_images_of_generators_that_are_not_trained_on_only_test(
    tree: Callable[..., Path],
) -> None:
    names = ("biggan", "progan", "stylegan")
    root = tree(*(f"{name}/{class_}" for name in names for class_ in ("0_real", "1_fake")))
    found = found_sources(root, {}, None, ["progan"], testing=False)
    assert found["real"] == ["real_progan"]
    assert found["unseen_real"] == ["real_biggan", "real_stylegan"]
    assert found["generators"] == list(names)
    assert found["pairs"] == {name: [f"real_{name}"] for name in names}
    assert found["folders"]["biggan"] == str(root)
    assert found["below"]["biggan"] == ["biggan/1_fake"]
    all_ = found_sources(root, {}, ["progan", "biggan"], None, testing=True)
    assert (all_["real"], all_["unseen_real"]) == (["real_progan", "real_biggan"], [])


def test_generators_without_training_images_are_not_trained_on(tree: Callable[..., Path]) -> None:
    root = tree("progan/train/real", "progan/train/fake", "progan/val/real", "progan/val/fake",
                "gaugan/val/real", "gaugan/val/fake")  # fmt: skip
    assert found_sources(root, {}, None, None, testing=False)["train_on"] == ["progan"]
    tested = found_sources(root, {}, None, None, testing=True)
    assert tested["below"]["progan"] == ["progan/val/fake"]


@pytest.mark.parametrize("inside", [False, True])
def test_named_real_images_are_shared(
    inside: bool, tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = tree("dalle2", "glide", *(["raise"] if inside else []))
    write_images(tmp_path / "raise", 2, 9)
    folder = root / "raise" if inside else tmp_path / "raise"
    found = found_sources(root, {"raise": folder}, None, None, testing=True)
    assert found["pairs"] == {"dalle2": ["raise"], "glide": ["raise"]}
    assert found["real"] == ["raise"]
    assert found["folders"]["raise"] == str(folder)
    assert "raise" not in found["below"]


def test_real_images_in_the_data_set_are_shared(tree: Callable[..., Path]) -> None:
    root = tree("faceswap", "simswap", "real")
    found = found_sources(root, {}, None, None, testing=True)
    assert found["pairs"] == {"faceswap": ["real"], "simswap": ["real"]}
    assert found["folders"]["real"] == str(root / "real")


def test_a_generator_that_no_folder_names_can_be_named(tree: Callable[..., Path]) -> None:
    root = tree("train/real", "train/fake", "test/real", "test/fake")
    assert found_sources(root, {}, None, None, testing=False)["generators"] == [root.name]
    found = found_sources(root, {}, ["stylegan"], None, testing=True)
    assert found["pairs"] == {"stylegan": ["real_stylegan"]}
    assert found["below"] == {"stylegan": ["test/fake"], "real_stylegan": ["test/real"]}
    with pytest.raises(UserError, match="names other"):
        found_sources(root, {}, ["set", "other"], None, testing=True)


def test_a_generator_that_a_folder_names_keeps_its_name(tree: Callable[..., Path]) -> None:
    root = tree("progan/real", "progan/fake")
    with pytest.raises(UserError, match="names stylegan"):
        found_sources(root, {}, ["stylegan"], None, testing=True)


def test_images_both_inside_and_outside_of_parts_are_refused(tree: Callable[..., Path]) -> None:
    root = tree("a/train/real", "a/train/fake", "a/x/real", "a/x/fake")
    with pytest.raises(UserError, match="both inside and outside"):
        found_sources(root, {}, None, None, testing=False)


class TestParquet:
    """The refusal of rows says commands that make folders, and how to go on."""

    def _obeyed(
        self, root: Path, *, testing: bool, caplog: pytest.LogCaptureFixture
    ) -> dict[str, Any]:
        """Run the commands of the refusal, then find the sources of the folders."""
        caplog.set_level(logging.INFO)
        with pytest.raises(UserError) as raised:
            found_sources(root, {}, None, None, testing=testing)
        assert raised.value.key == str(root)
        commands = caplog.messages[-1].splitlines()
        for command in commands:
            program, *arguments = shlex.split(command)
            assert (program, main(arguments)) == ("forensics", 0)
        *_, last = str(raised.value).rstrip(".").rpartition("repeat this one with ")
        settings = dict(word.split("=") for word in shlex.split(last))
        to = Path(settings.pop("dataset.root"))
        names = [name for name in settings.pop("dataset.real", "[]")[1:-1].split(",") if name]
        assert not settings
        return found_sources(
            to, {name: to / name for name in names}, None, None, testing=testing
        ) | {"to": to}

    def _images(self, found: dict[str, Any]) -> dict[str, set[int]]:
        """By source, the numbers that its images show."""
        shown: dict[str, set[int]] = {}
        for name, folder in found["folders"].items():
            for below in found["below"].get(name, ["."]):
                for path in Path(folder, below).rglob("*.png"):
                    with Image.open(path) as image:
                        shown.setdefault(name, set()).add(cast(int, image.getpixel((0, 0))))
        return shown

    @staticmethod
    def _write(path: Path, first: int, **columns: Sequence[object]) -> None:
        images = []
        for number in range(len(columns["label"])):
            encoded = io.BytesIO()
            Image.new("L", (4, 4), first + number).save(encoded, "png")
            images.append({"bytes": encoded.getvalue(), "path": None})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": images, **columns}), path)

    def test_real_images_of_all(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        label = ["real", "fake", "fake", "real", "fake", "fake"]
        models = [None, "a b/it's", "ai", None, "ai", "../up"]
        self._write(tmp_path / "my set.parquet", 0, label=label, model=models)
        found = self._obeyed(tmp_path / "my set.parquet", testing=True, caplog=caplog)
        assert found["to"] == tmp_path / "my set_folders"
        shown = {"a_b_it_s": {1}, "generator_ai": {2, 4}, "_._up": {5}}
        assert found["pairs"] == {name: ["real"] for name in shown}
        assert self._images(found) == {"real": {0, 3}} | shown

    @pytest.mark.parametrize("models", [False, True])
    @pytest.mark.parametrize("testing", [False, True])
    def test_parts(
        self, tmp_path: Path, testing: bool, models: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        root = tmp_path / "set"
        more = {"model": ["x", "sd", "gan"]} if models else {}
        for first, part in ((0, "train"), (3, "test")):
            name = f"{part}-00000-of-00001.parquet"
            self._write(root / "data" / name, first, label=["real", "fake", "fake"], **more)
        shown = {"real" if models else "real_set": {3}}
        shown |= {"sd": {4}, "gan": {5}} if models else {"set": {4, 5}}
        if not testing:
            shown = {name: of | {number - 3 for number in of} for name, of in shown.items()}
        found = self._obeyed(root, testing=testing, caplog=caplog)
        assert self._images(found) == shown

    def test_numbers_are_for_the_user_to_tell(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self._write(tmp_path / "x.parquet", 0, label=[1, 0, 1])
        found = self._obeyed(tmp_path / "x.parquet", testing=True, caplog=caplog)
        assert self._images(found) == {"real_x_folders": {1}, "x_folders": {0, 2}}

    def test_only_generators_that_are_used_are_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self._write(tmp_path / "x.parquet", 0, label=["real", "fake", "fake"],
                    model=["real", "a", "b"])  # fmt: skip
        caplog.set_level(logging.INFO)
        with pytest.raises(UserError, match="in parquet files"):
            found_sources(tmp_path / "x.parquet", {}, ["b"], None, testing=True)
        assert "model=b" in caplog.messages[-1]
        assert "model=a" not in caplog.messages[-1]


@pytest.mark.slow
class TestTraining:
    """`train.py` on a data set as it was unpacked."""

    @pytest.fixture
    def train(self, tmp_path: Path, run_program: Callable[..., int]) -> Callable[..., int]:
        return lambda root, *more: run_program(
            TRAIN, "dataset=folders", f"dataset.root={root}", "dataset.image_size=16",
            "model.channels=[4,8]", "batch_size=4", "max_epochs=1", "trainer=cpu", "audit=off",
            "cache_dir=cache", "name=x", *more,
        )  # fmt: skip

    def test_the_data_sets_parts_are_used_and_a_run_resumes(
        self, train: Callable[..., int], tmp_path: Path, run_program: Callable[..., int],
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        for part, count in (("train", 8), ("valid", 4), ("test", 6)):
            for seed, class_ in enumerate(("real", "fake")):
                write_images(tmp_path / "140k" / part / class_, count, count + 20 * seed)
        assert train("140k", "dataset.split=given") == 0
        assert "140k, validation: 4 in valid/fake; real 4 in valid/real" in capfd.readouterr().out
        result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
        assert result["images"] == {
            part: dict.fromkeys(("real_140k", "140k"), count)
            for part, count in (("train", 8), ("validation", 4), ("test", 6))
        }
        assert result["groups"] == {}
        assert run_program(TRAIN, "resume=outputs/x", "max_epochs=2") == 0

    def test_each_generator_is_compared_with_its_own_real_images_and_groups_are_counted(
        self, train: Callable[..., int], tmp_path: Path
    ) -> None:
        for seed, folder in enumerate(f"{n}/{c}" for n in "ab" for c in ("real", "fake")):
            for person in range(6):
                write_images(tmp_path / "set" / folder / f"p{person}", 4, 10 * seed + person)
        more = ["dataset.split=by_group", "dataset.group=1", "dataset.train_on=[a]",
                "dataset.train_count=16", "dataset.test_count=8"]  # fmt: skip
        assert train("set", *more) == 0
        result = json.loads((tmp_path / "outputs" / "x" / "result.json").read_text())
        pairs = [(pair["real"], pair["generator"]) for pair in result["pairs"]]
        assert pairs == [("real_a", "a"), ("real_b", "b")]
        assert sum(result["groups"].values()) == 6
        assert result["summary"]["unseen"]["pairs"] == 1
