"""Which part an image is in by folders, lists or groups; and never in two, nor its group."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from test_splits import BASE, PREPARATION

from forensics.data.opening import open_sources
from forensics.data.settings import DatasetSettings, Protocol
from forensics.data.sources import Source
from forensics.data.splits import Split, split_sources
from forensics.errors import UserError
from forensics.images.geometry import Match

PARTS = ("train", "validation", "test")

Tree = Mapping[str, Mapping[str, int]]
"""By source, the paths of its images and what each of them shows, a number."""

Parts = dict[str, set[str]]
"""By part, the images in it, as ``source/path``."""


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Tree], list[Source]]:
    """Write one-pixel images and open them as sources."""

    def make(tree: Tree) -> list[Source]:
        for name, paths in tree.items():
            for path, number in paths.items():
                file = tmp_path / "faces" / name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                colour = (number >> 16, number >> 8 & 255, number & 255)
                Image.new("RGB", (1, 1), colour).save(file)
        folders = {name: tmp_path / "faces" / name for name in tree}
        return open_sources(folders, PREPARATION, tmp_path / "cache")

    return make


def settings_of(tmp_path: Path, **changes: object) -> DatasetSettings:
    """Sources real, seen and unseen; all images of the parts that the data set says."""
    usual = {"root": str(tmp_path / "faces"), "train_count": None, "test_count": None}
    return dataclasses.replace(BASE, **(usual | changes))  # type: ignore[arg-type]


def parts_of(split: Split, sources: list[Source]) -> Parts:
    """The images of each part, by their names."""
    return {
        name: {
            f"{sources[source].name}/{sources[source].paths[row]}"
            for source, row in zip(part.source, part.row, strict=True)
        }
        for name, part in zip(PARTS, split[:3], strict=True)
    }


def below(paths: Parts, folder: str) -> Parts:
    """The images of each part that are in a folder of this name."""
    return {part: {path for path in of if f"/{folder}/" in path} for part, of in paths.items()}


def distinct(*paths: str) -> dict[str, dict[str, int]]:
    """A tree of distinct images, at ``SOURCE/path`` for a count of 1, ``SOURCE/folder:N`` for N."""
    tree: dict[str, dict[str, int]] = {}
    number = 0
    for path in paths:
        source, _, rest = path.partition("/")
        folder, _, count = rest.partition(":")
        for position in range(int(count or 1)):
            inner = f"{folder}/{position:03d}.png" if count else folder
            tree.setdefault(source, {})[inner] = number = number + 1
    return tree


class TestGiven:
    @pytest.fixture
    def given(self, tmp_path: Path) -> DatasetSettings:
        return settings_of(tmp_path, split=Protocol.given)

    def test_the_data_sets_parts_are_used_as_they_are(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        sources = opened(distinct(
            *(f"{name}/{folder}" for name in ("real", "seen")
              for folder in ("train:6", "valid/a:2", "valid/b:1", "Testing:4")),
            "unseen/a:5",
        ))  # fmt: skip
        split = split_sources(sources, given, seed=0)
        found = parts_of(split, sources)
        for part, folder, count in (("train", "train", 6), ("validation", "valid", 3)):
            assert found[part] == below(found, folder)[part]
            assert len(found[part]) == 2 * count
        assert len(below(found, "Testing")["test"]) == 8
        assert len(below(found, "a")["test"]) == 5  # a source that is only tested needs no parts
        assert split.notes == []

    def test_the_category_train_is_no_part(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        sources = opened(distinct(
            *(f"{name}/{part}/{kind}/x:2" for name in ("real", "seen")
              for part in ("train", "val", "test") for kind in ("bus", "car", "train")),
            *(f"unseen/{kind}/x:1" for kind in ("bus", "car", "train")),
        ))  # fmt: skip
        found = parts_of(split_sources(sources, given, seed=0), sources)
        for part, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
            tested_only = {path for path in found[part] if path.startswith("unseen/")}
            assert len(tested_only) == (3 if part == "test" else 0)
            assert {path.split("/")[1] for path in found[part] - tested_only} == {folder}
            assert len(found[part] - tested_only) == 12

    def test_without_validation_images_a_seeded_share_of_training_validates(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        tree = distinct(*(f"{name}/{folder}" for name in ("real", "seen")
                          for folder in ("train:10", "test:3")), "unseen/test:3")  # fmt: skip
        sources = opened(tree)
        first, again, other = (
            parts_of(split_sources(sources, given, seed), sources) for seed in (0, 0, 1)
        )
        assert first == again
        assert first["validation"] != other["validation"]
        assert len(first["validation"]) == 4  # a share of 0.2
        assert first["test"] == other["test"] == below(first, "test")["test"]

    def test_without_test_images_those_for_validation_are_the_tests(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        folders = [f"{name}/{folder}" for name in ("real", "seen", "unseen")
                   for folder in ("train:10", "val:3")]  # fmt: skip
        sources = opened(distinct(*folders))
        found = parts_of(split_sources(sources, given, 0), sources)
        assert below(found, "val") == {"train": set(), "validation": set(), "test": found["test"]}
        assert len(found["test"]) == 9
        assert not below(found, "train")["test"]

    def test_a_copy_of_a_test_image_is_dropped_and_the_classes_stay_even(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        tree = distinct(*(f"{name}/{folder}" for name in ("real", "seen")
                          for folder in ("train:6", "valid:2", "test:3")),
                        "unseen/x:3")  # fmt: skip
        tree["seen"]["train/000.png"] = tree["real"]["test/000.png"]
        tree["seen"]["train/001.png"] = tree["real"]["valid/000.png"]
        sources = opened(tree)
        split = split_sources(sources, given, seed=0)
        assert split.dropped == {"real": 0, "seen": 2}
        assert [split.train.count(source) for source in range(3)] == [4, 4, 0]
        assert any("real: 6 of 8 images" in note for note in split.notes)

    def test_what_only_validates_takes_of_all_but_the_tests_folders(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        given = dataclasses.replace(given, validate_on=["held_out"])
        folders = ("train:6", "valid:3", "test:3")
        tree = distinct(
            *(f"{name}/{folder}" for name in ("real", "seen") for folder in folders),
            *("unseen/x:2", "held_out/train:1", "held_out/valid:2", "held_out/test:4"),
        )
        sources = opened(tree)
        found = parts_of(split_sources(sources, given, seed=0), sources)
        held_out = {part: {path for path in of if path.startswith("held_out")}
                    for part, of in found.items()}  # fmt: skip
        expected = {"held_out/train/000.png", "held_out/valid/000.png", "held_out/valid/001.png"}
        assert held_out == {"train": set(), "validation": expected, "test": set()}

    def test_what_only_validates_needs_other_images_than_the_tests(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        given = dataclasses.replace(given, validate_on=["held_out"])
        folders = [
            f"{name}/{folder}" for name in ("real", "seen") for folder in ("train:9", "test:3")
        ]
        with pytest.raises(UserError) as raised:
            split_sources(opened(distinct(*folders, "unseen/x:2", "held_out/test:4")), given, 0)
        assert raised.value.key == "held_out"

    def test_counts_take_evenly_of_all_folders(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings
    ) -> None:
        sources = opened(distinct(*(f"{name}/{part}/{kind}:6" for name in ("real", "seen", "unseen")
                                    for part in ("train", "test") for kind in "ab")))  # fmt: skip
        few = dataclasses.replace(given, train_count=4, test_count=2)
        found = parts_of(split_sources(sources, few, 0), sources)
        for kind in "ab":
            of_kind = below(found, kind)
            assert len(of_kind["train"]) + len(of_kind["validation"]) == 4
            assert len(of_kind["test"]) == 3

    @pytest.mark.parametrize(
        ("paths", "said"),
        [
            (["train:6", "test:2", "more:1"], "real"),  # inside and outside
            (["a:6"], "real"),  # no parts at all
            (["train/test:3", "train/a:6"], "train/test"),
            (["train:6", "valid:2"], "real"),  # others have a test
        ],
    )
    def test_what_decides_nothing_is_refused(
        self, opened: Callable[[Tree], list[Source]], given: DatasetSettings,
        paths: list[str], said: str,
    ) -> None:  # fmt: skip
        sources = opened(distinct(*(f"real/{path}" for path in paths),
                                  "seen/train:6", "seen/test:2", "unseen/test:2"))  # fmt: skip
        with pytest.raises(UserError) as raised:
            split_sources(sources, given, 0)
        assert said in str(raised.value)


class TestListed:
    @pytest.fixture
    def listed(self, tmp_path: Path) -> Callable[..., DatasetSettings]:
        def make(**lists: str) -> DatasetSettings:
            files = {}
            for part, text in lists.items():
                (tmp_path / f"{part}.txt").write_text(text)
                files[part] = str(tmp_path / f"{part}.txt")
            return settings_of(tmp_path, split=Protocol.listed, listed=files)

        return make

    TREE: ClassVar = distinct("real/a:6", "real/b:3", "seen/a:6", "seen/b:3", "unseen/b:2")
    LISTS: ClassVar = {
        "train": "real/a\nseen/a\n",
        "validation": "real/b/000.png\nseen/b/000.png\n\n",
        "test": "real/b/001.png\nreal/b/002.png\nseen/b/001.png\n  unseen/b/ \n",
    }

    def test_lines_are_images_or_folders(
        self, opened: Callable[[Tree], list[Source]], listed: Callable[..., DatasetSettings]
    ) -> None:
        sources = opened(self.TREE)
        split = split_sources(sources, listed(**self.LISTS), seed=0)
        found = parts_of(split, sources)
        assert found["train"] == below(found, "a")["train"]
        assert len(found["train"]) == 12
        assert found["validation"] == {"real/b/000.png", "seen/b/000.png"}
        tested = {"real": (1, 2), "seen": (1,), "unseen": (0, 1)}
        expected = {f"{name}/b/{n:03d}.png" for name, of in tested.items() for n in of}
        assert found["test"] == expected
        assert split.notes == []

    def test_lines_may_start_at_the_root_where_a_source_has_another_folder(
        self, opened: Callable[[Tree], list[Source]], listed: Callable[..., DatasetSettings],
        tmp_path: Path,
    ) -> None:  # fmt: skip
        settings = listed(**(self.LISTS | {"train": "real/a\ndeep/x/a\n"}))
        folders = {"seen": str(tmp_path / "faces" / "deep" / "x")}
        sources = opened(self.TREE)
        split = split_sources(sources, dataclasses.replace(settings, folders=folders), seed=0)
        whole = split_sources(sources, listed(**self.LISTS), seed=0)
        assert parts_of(split, sources) == parts_of(whole, sources)

    def test_names_of_no_image_are_counted(
        self, opened: Callable[[Tree], list[Source]], listed: Callable[..., DatasetSettings]
    ) -> None:
        more = self.LISTS | {"train": self.LISTS["train"] + "real/c\nelsewhere/x.png\n"}
        split = split_sources(opened(self.TREE), listed(**more), seed=0)
        (note,) = split.notes
        assert "2 of 10" in note
        assert "real/c" in note

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"test": "real/b\nseen/b\nunseen/b\n"}, "real/b/000.png"),  # as a file for validation
            ({"test": "real/a\nunseen/b\n"}, "real/a"),
            ({"train": "x\n", "validation": "y\n", "test": "z\n"}, "none is of an image"),
        ],
    )
    def test_contradictions_are_refused(
        self, opened: Callable[[Tree], list[Source]], listed: Callable[..., DatasetSettings],
        change: dict[str, str], said: str,
    ) -> None:  # fmt: skip
        with pytest.raises(UserError, match=re.escape(said)) as raised:
            split_sources(opened(self.TREE), listed(**(self.LISTS | change)), 0)
        assert raised.value.key == "dataset.listed"

    def test_a_missing_file_is_named(
        self, opened: Callable[[Tree], list[Source]], listed: Callable[..., DatasetSettings],
        tmp_path: Path,
    ) -> None:  # fmt: skip
        settings = listed(**self.LISTS)
        (tmp_path / "test.txt").unlink()
        with pytest.raises(UserError, match=re.escape("test.txt")):
            split_sources(opened(self.TREE), settings, 0)


class TestByGroup:
    @pytest.fixture
    def grouped(self, tmp_path: Path) -> Callable[..., DatasetSettings]:
        def make(group: int | str, **changes: object) -> DatasetSettings:
            counts = {"train_count": 40, "test_count": 20} | changes
            return settings_of(tmp_path, split=Protocol.by_group, group=group, **counts)

        return make

    @pytest.mark.parametrize(
        ("group", "name"),
        [(1, "{source}/{group}/{n}.png"), (2, "{group}/{source}/{n}.png"),
         (r"person(\d+)", "x/{n}-person{group}.png")],
    )  # fmt: skip
    def test_a_group_is_in_one_part_of_all_sources(
        self, opened: Callable[[Tree], list[Source]], grouped: Callable[..., DatasetSettings],
        group: int | str, name: str,
    ) -> None:  # fmt: skip
        tree: dict[str, dict[str, int]] = {}
        number = 0
        for source in ("real", "seen", "unseen"):
            for person in range(12):
                for n in range(5):
                    path = name.format(source=source, group=f"{person:02d}", n=n)
                    tree.setdefault(source, {})[path] = number = number + 1
        sources = opened(tree)
        split = split_sources(sources, grouped(group), seed=0)
        found = parts_of(split, sources)
        persons = {
            part: {number for path in of for number in re.findall(r"\d\d", path)}
            for part, of in found.items()
        }
        assert sum(map(len, persons.values())) == len(set().union(*persons.values())) == 12
        assert split.groups == {part: len(of) for part, of in persons.items()}
        assert [split.groups[part] for part in ("train", "test")] == [6, 4]

    def test_the_draw_is_the_same_for_every_seed_of_a_run(
        self, opened: Callable[[Tree], list[Source]], grouped: Callable[..., DatasetSettings]
    ) -> None:
        paths = [
            f"{name}/p{person}:3" for name in ("real", "seen", "unseen") for person in range(9)
        ]
        sources = opened(distinct(*paths))
        first, second = (
            parts_of(split_sources(sources, grouped(1), seed), sources) for seed in (0, 1)
        )
        assert first == second

    def test_a_group_of_each_source_is_in_each_part(
        self, opened: Callable[[Tree], list[Source]], grouped: Callable[..., DatasetSettings]
    ) -> None:
        paths = [f"{name}/{name}{n}:5" for name in ("real", "seen") for n in range(3)]
        sources = opened(distinct(*paths, "unseen/a:5"))
        split = split_sources(sources, grouped(1), seed=0)
        for part in split[:3]:
            assert [part.count(source) for source in (0, 1)] == [5, 5]

    def test_parts_fill_up_to_their_shares(
        self, opened: Callable[[Tree], list[Source]], grouped: Callable[..., DatasetSettings]
    ) -> None:
        paths = [f"{name}/p{n}:1" for name in ("real", "seen", "unseen") for n in range(30)]
        split = split_sources(opened(distinct(*paths)), grouped(1), seed=0)
        # A third tests, and a fifth of the rest validates.
        assert split.groups == {"train": 16, "validation": 4, "test": 10}

    @pytest.mark.parametrize(
        ("paths", "group", "key"),
        [
            (["real/000.png", "real/a:9"], 1, "dataset.group"),
            (["real/a:9"], r"^x(\d)", "dataset.group"),
            (["real/a:9"], 1, "real"),  # one group cannot be in three parts
        ],
    )
    def test_images_without_a_group_or_sources_with_too_few_are_named(
        self, opened: Callable[[Tree], list[Source]], grouped: Callable[..., DatasetSettings],
        paths: list[str], group: int | str, key: str,
    ) -> None:  # fmt: skip
        others = [f"{name}/p{person}:3" for name in ("seen", "unseen") for person in range(5)]
        with pytest.raises(UserError) as raised:
            split_sources(opened(distinct(*paths, *others)), grouped(group), 0)
        assert raised.value.key == key


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("protocol", ["given", "listed", "by_group", "by_group in names"])
def test_no_file_and_no_group_is_in_two_parts(
    protocol: str, seed: int, opened: Callable[[Tree], list[Source]], tmp_path: Path
) -> None:
    draws = np.random.default_rng([seed, len(protocol)])
    # Few colours, so that equal files are everywhere: within and between sources and parts.
    colours, persons = int(draws.integers(40, 400)), int(draws.integers(3, 15))
    tree: dict[str, dict[str, int]] = {}
    lines: dict[str, list[str]] = {part: [] for part in PARTS}
    for source in ("real", "seen", "unseen"):
        for n in range(int(draws.integers(20, 60))):
            part, person = draws.choice(PARTS, p=[0.6, 0.2, 0.2]), draws.integers(persons)
            folder = f"{part}/" if protocol == "given" else ""
            path = f"{folder}{person:02d}/{n:03d}_{person:02d}.png"
            tree.setdefault(source, {})[path] = int(draws.integers(0, colours))
            lines[part].append(f"{source}/{path}")
    listed = {}
    if protocol == "listed":
        for part, names in lines.items():
            (tmp_path / part).write_text("\n".join(names))
            listed[part] = str(tmp_path / part)
    by_group = protocol.startswith("by_group")
    settings = settings_of(
        tmp_path,
        split=Protocol(protocol.split()[0]),
        listed=listed,
        group=(1 if protocol == "by_group" else r"_(\d+)\.") if by_group else None,
        train_count=20 if by_group else None,
        test_count=10 if by_group else None,
    )
    sources = opened(tree)
    try:
        split = split_sources(sources, settings, seed)
    except UserError as error:
        assert "too few images" in str(error) or "no test image" in str(error)  # noqa: PT017
        return
    files: list[set[str]] = []
    groups: list[set[str]] = []
    for part in split[:3]:
        assert len(part) > 0
        images = list(zip(part.source.tolist(), part.row.tolist(), strict=True))
        assert len(set(images)) == len(images)
        files.append({sources[source].sha256[row] for source, row in images})
        groups.append({sources[source].paths[row].split("/")[-2] for source, row in images})
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not files[first] & files[second]
        if by_group:
            assert not groups[first] & groups[second]
    assert split.train.count(0) == split.train.count(1)
    if by_group:
        assert split.groups == {part: len(of) for part, of in zip(PARTS, groups, strict=True)}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"split": Protocol.listed}, "listed"),
        ({"listed": {"train": "x"}}, "listed"),
        ({"split": Protocol.listed, "listed": {"tests": "x"}}, "listed"),
        ({"split": Protocol.by_group}, "group"),
        ({"group": 1}, "group"),
        *(({"split": Protocol.by_group, "group": of}, "group")
          for of in (0, "no group", "(two)(groups)", "(broken")),
        ({"split": Protocol.given, "match": Match.codec}, "match"),
        ({"train_count": None}, "train_count"),
        ({"split": Protocol.by_group, "group": 1, "test_count": None}, "test_count"),
        ({"below": {"nobody": ["x"]}}, "below"),
        ({"below": {"seen": []}}, "below.seen"),
        ({"pairs": {"real": "real"}}, "pairs"),
        ({"pairs": ["real"]}, "pairs"),
        ({"split": Protocol.listed, "listed": "train.txt"}, "listed"),
        ({"pairs": {"seen": "unseen"}}, "pairs"),
        ({"pairs": {"seen": []}}, "pairs"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, object], key: str
) -> None:
    with pytest.raises(UserError) as raised:
        dataclasses.replace(BASE, **changes).check_training()  # type: ignore[arg-type]
    assert raised.value.key == f"dataset.{key}"
