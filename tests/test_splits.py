"""Which images train, validate and test: counts, roles, balance, and nothing on two sides."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import photos
from PIL import Image

from forensics.data.opening import open_source
from forensics.data.settings import DatasetSettings, Protocol
from forensics.data.sources import Preparation, Source
from forensics.data.splits import Part, Split, needed_images, split_sources
from forensics.errors import UserError
from forensics.images.geometry import Match, ResizeFilter, View

BASE = DatasetSettings(
    root="faces",
    find_layout=False,
    folders={},
    below={},
    real=["real"],
    unseen_real=[],
    generators=["seen", "unseen"],
    pairs={},
    train_on=["seen"],
    validate_on=[],
    paired=False,
    split=Protocol.first_last,
    listed={},
    group=None,
    train_count=20,
    test_count=10,
    drop_near_duplicates=False,
    validation_share=0.2,
    image_size=1,
    view=View.resize,
    crop_size=None,
    resize_filter=ResizeFilter.lanczos,
    match=Match.none,
    min_side=1,
    max_rejected_share=0.0,
    toy=False,
)
PREPARATION = Preparation(1, ResizeFilter.lanczos, 1, 0.0)

MakeSources = Callable[..., list[Source]]


@pytest.fixture
def sources(tmp_path: Path) -> MakeSources:
    """Make sources of one-pixel images, each given by a number, its colour.

    A count stands for as many numbers that nothing else has. ``origins`` has, by source, the number
    that each of its first images was made from.
    """
    fresh = iter(range(10_000, 2**24))

    def make(
        origins: Mapping[str, Sequence[int]] | None = None, **contents: int | Iterable[int]
    ) -> list[Source]:
        made = []
        files: dict[int, str] = {}
        for name, content in contents.items():
            numbers = [next(fresh) for _ in range(content)] if isinstance(content, int) else content
            folder = tmp_path / f"{next(fresh)}" / name
            folder.mkdir(parents=True)
            for position, number in enumerate(numbers):
                colour = (number >> 16, number >> 8 & 255, number & 255)
                path = folder / f"{position:04d}.png"
                Image.new("RGB", (1, 1), colour).save(path)
                files[number] = hashlib.sha256(path.read_bytes()).hexdigest()
            if name in (origins or {}):
                made_from = {
                    f"{position:04d}.png": {"sha256": files.get(number, "of another world")}
                    for position, number in enumerate((origins or {})[name])
                }
                (folder / "source.json").write_text(json.dumps({"made_from": made_from}))
            made.append(open_source(name, folder, PREPARATION, tmp_path / "cache"))
        return made

    return make


def _rows(part: Part, source: int) -> list[int]:
    return [int(row) for row in part.row[part.source == source]]


def _fitted(split: Split, source: int) -> list[int]:
    """Rows that train or validate."""
    return sorted(_rows(split.train, source) + _rows(split.validation, source))


def _pixels(part: Part, sources: list[Source]) -> Counter[bytes]:
    """What the images show, from the rows themselves."""
    return Counter(
        sources[source].rows[row].tobytes()
        for source, row in zip(part.source, part.row, strict=True)
    )


class TestCounts:
    @pytest.mark.parametrize("count", [30, 31, 100])
    def test_the_first_train_or_validate_and_the_last_test(
        self, sources: MakeSources, count: int
    ) -> None:
        split = split_sources(sources(real=count, seen=count, unseen=count), BASE, seed=0)
        last = list(range(count - 10, count))
        for source in range(3):
            assert _rows(split.test, source) == last
        for source in range(2):
            assert _fitted(split, source) == list(range(20))
        assert _fitted(split, 2) == []
        assert split.notes == []
        assert split.dropped == {"real": 0, "seen": 0}

    @pytest.mark.parametrize(("count", "trains", "tests"), [(29, 19, 10), (15, 10, 5), (3, 2, 1)])
    def test_a_folder_too_small_for_both_is_shared_in_proportion(
        self, sources: MakeSources, count: int, trains: int, tests: int
    ) -> None:
        split = split_sources(sources(real=count, seen=count, unseen=40), BASE, seed=0)
        assert _rows(split.test, 1) == list(range(count - tests, count))
        assert _fitted(split, 1) == list(range(trains))
        assert split.dropped == {"real": 0, "seen": 0}  # tested images were never to train
        assert any(
            f"seen has {count} images" in note
            and f"{trains} train or validate instead of 20" in note
            for note in split.notes
        )

    def test_an_unseen_generator_tests_with_all_it_has(self, sources: MakeSources) -> None:
        split = split_sources(sources(real=30, seen=30, unseen=4), BASE, seed=0)
        assert _rows(split.test, 2) == [0, 1, 2, 3]
        assert split.notes == ["unseen has 4 images: 4 test instead of 10."]

    def test_reals_test_with_no_more_than_the_largest_generator(self, sources: MakeSources) -> None:
        split = split_sources(sources(real=100, seen=15, unseen=7), BASE, seed=0)
        assert [split.test.count(source) for source in range(3)] == [7, 5, 7]

    def test_the_smaller_class_sets_the_size_of_both(self, sources: MakeSources) -> None:
        split = split_sources(sources(real=100, seen=15, unseen=10), BASE, seed=0)
        assert _fitted(split, 0) == _fitted(split, 1) == list(range(10))

    @pytest.mark.parametrize(
        ("real", "train_on", "per_source"),
        [
            ({"r1": 30}, {"g1": 30, "g2": 30}, [20, 10, 10]),
            ({"r1": 30, "r2": 30}, {"g1": 30}, [10, 10, 20]),
            ({"r1": 30, "r2": 30}, {"g1": 30, "g2": 30}, [20] * 4),
            ({"r1": 30, "r2": 18}, {"g1": 30}, [10, 10, 20]),
            ({"r1": 30, "r2": 9}, {"g1": 30}, [6, 6, 12]),
            ({"r1": 30, "r2": 30}, {"g1": 30, "g2": 30, "g3": 30}, [18, 18, 12, 12, 12]),
            # 19 of one source cannot be had of two in equal shares.
            ({"r1": 30, "r2": 30}, {"g1": 29}, [9, 9, 18]),
        ],
    )
    def test_classes_train_with_as_many_images_in_equal_shares(
        self,
        sources: MakeSources,
        real: dict[str, int],
        train_on: dict[str, int],
        per_source: list[int],
    ) -> None:
        settings = dataclasses.replace(
            BASE, real=list(real), generators=[*train_on, "unseen"], train_on=list(train_on)
        )
        split = split_sources(sources(**real, **train_on, unseen=10), settings, seed=0)
        fitted = [_fitted(split, source) for source in range(len(real) + len(train_on))]
        assert sum(len(f) for f in fitted[: len(real)]) == sum(len(f) for f in fitted[len(real) :])
        assert [len(f) for f in fitted] == per_source
        # The classes validate with as many images, too, and sources with equal shares of them.
        validating = [split.validation.count(source) for source in range(len(fitted))]
        assert sum(validating[: len(real)]) == sum(validating[len(real) :])
        assert len(set(validating[: len(real)])) == len(set(validating[len(real) :])) == 1
        assert fitted == [list(range(n)) for n in per_source]

    def test_a_generator_that_is_not_trained_on_only_tests(self, sources: MakeSources) -> None:
        settings = dataclasses.replace(BASE, train_on=["unseen"])
        split = split_sources(sources(real=30, seen=30, unseen=30), settings, seed=0)
        assert _fitted(split, 1) == []
        assert len(_fitted(split, 2)) == 20


class TestValidation:
    @pytest.mark.parametrize(("share", "count"), [(0.2, 4), (0.5, 10), (0.001, 1), (0.95, 19)])
    def test_is_the_share_of_each_trained_source(
        self, sources: MakeSources, share: float, count: int
    ) -> None:
        settings = dataclasses.replace(BASE, validation_share=share)
        split = split_sources(sources(real=40, seen=40, unseen=10), settings, seed=0)
        assert [split.validation.count(source) for source in range(3)] == [count, count, 0]
        assert [split.train.count(source) for source in range(3)] == [20 - count, 20 - count, 0]

    def test_the_seed_alone_decides_which(self, sources: MakeSources) -> None:
        made = sources(real=200, seen=200, unseen=10)
        settings = dataclasses.replace(BASE, train_count=100)
        np.random.seed(0)
        first = split_sources(made, settings, seed=3)
        np.random.seed(1)
        again, other = (split_sources(made, settings, seed=seed) for seed in (3, 4))
        for a, b in zip(first[:3], again[:3], strict=True):
            np.testing.assert_array_equal(a.source, b.source)
            np.testing.assert_array_equal(a.row, b.row)
        assert _rows(first.validation, 0) != _rows(other.validation, 0)
        assert _rows(first.test, 0) == _rows(other.test, 0)

    def test_every_training_image_may_validate(self, sources: MakeSources) -> None:
        made = sources(real=30, seen=30, unseen=10)
        drawn: set[int] = set()
        for seed in range(60):
            drawn |= {*_rows(split_sources(made, BASE, seed).validation, 0)}
        assert drawn == set(range(20))


class TestDuplicates:
    def test_training_images_that_also_test_are_dropped_and_counted(
        self, sources: MakeSources
    ) -> None:
        seen = list(range(30))
        seen[4], seen[11] = 25, 1000  # one tests in its own source, one as another's
        made = sources(real=30, seen=seen, unseen=[1000, *range(100, 109)])
        split = split_sources(made, BASE, seed=0)
        assert split.dropped == {"real": 0, "seen": 2}
        assert not {4, 11} & set(_fitted(split, 1))
        assert [split.test.count(source) for source in range(3)] == [10, 10, 10]
        assert len(_fitted(split, 0)) == len(_fitted(split, 1)) == 18
        assert any(note.startswith("seen: 2 training images dropped") for note in split.notes)

    def test_a_copied_file_of_another_name_and_format_is_a_duplicate(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3), np.uint8)
        for position, name in enumerate(("real", "seen", "unseen")):
            folder = tmp_path / name
            folder.mkdir()
            for number, image in enumerate(pixels[30 * position :][: 30 - 10 * (position == 2)]):
                Image.fromarray(image).save(folder / f"{number:03d}.png")
        last = Image.open(tmp_path / "real" / "029.png")
        last.save(tmp_path / "real" / "0.webp", lossless=True)
        preparation = PREPARATION._replace(image_size=4)
        made = [
            open_source(name, tmp_path / name, preparation, tmp_path / "cache")
            for name in ("real", "seen", "unseen")
        ]
        assert made[0].paths[0] == "0.webp"
        split = split_sources(made, BASE, seed=0)
        assert split.dropped == {"real": 1, "seen": 0}
        assert 0 not in _fitted(split, 0)

    @pytest.mark.parametrize("drop", [False, True])
    def test_near_duplicates_are_dropped_if_set(self, tmp_path: Path, drop: bool) -> None:
        preparation = PREPARATION._replace(image_size=32)
        images = {name: photos(30, seed=seed) for seed, name in enumerate(("real", "seen"))}
        images["unseen"] = photos(10, seed=2)
        for name, pixels in images.items():
            folder = tmp_path / name
            folder.mkdir()
            for number, image in enumerate(pixels):
                Image.fromarray(image).save(folder / f"{number:03d}.png")
        changed = (
            ("real", 2, "real", 25),  # one that tests
            ("real", 3, "unseen", 4),  # one that tests as another's
            ("real", 5, "real", 11),  # one that trains: the first of the two is kept
        )
        for name, number, source, original in changed:
            image = Image.fromarray(images[source][original]).transpose(
                Image.Transpose.FLIP_LEFT_RIGHT
            )
            image.save(tmp_path / name / f"{number:03d}.png", "WEBP", quality=90)
        made = [
            open_source(name, tmp_path / name, preparation, tmp_path / "cache") for name in images
        ]
        split = split_sources(made, dataclasses.replace(BASE, drop_near_duplicates=drop), seed=0)
        assert split.dropped == {"real": 3 if drop else 0, "seen": 0}
        assert bool({2, 3, 11} & set(_fitted(split, 0))) is not drop
        assert ("near-duplicates" in " ".join(split.notes)) is drop

    @pytest.mark.parametrize("seed", range(5))
    def test_training_images_that_also_validate_are_dropped_and_counted(
        self, sources: MakeSources, seed: int
    ) -> None:
        made = sources(real=30, seen=[number // 2 for number in range(30)], unseen=10)
        split = split_sources(made, BASE, seed)
        train, validation = (_pixels(part, made) for part in (split.train, split.validation))
        assert not train.keys() & validation.keys()
        lost = 20 - len(_fitted(split, 1))
        assert split.dropped["seen"] == lost > 0

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(40))
    def test_no_pixels_are_in_two_parts(self, sources: MakeSources, seed: int) -> None:
        generator = np.random.default_rng(seed)
        reals, seen, unseen = generator.integers(1, [3, 3, 3])
        names = [f"{kind}{i}" for kind, n in (("r", reals), ("g", seen), ("u", unseen))
                 for i in range(n)]  # fmt: skip
        # Few colours, so that copies are everywhere: within and between sources and classes.
        colours = int(generator.integers(60, 600))
        made = sources(
            **{name: generator.integers(0, colours, generator.integers(5, 60)) for name in names}
        )
        settings = dataclasses.replace(
            BASE,
            real=names[:reals],
            generators=names[reals:],
            train_on=names[reals : reals + seen],
            train_count=int(generator.integers(1, 40)),
            test_count=int(generator.integers(1, 20)),
            validation_share=float(generator.uniform(0.05, 0.6)),
        )
        try:
            split = split_sources(made, settings, seed)
        except UserError as error:
            assert "too few images" in str(error)  # noqa: PT017
            return
        train, validation, test = (_pixels(part, made) for part in split[:3])
        assert not train.keys() & validation.keys()
        assert not train.keys() & test.keys()
        assert not validation.keys() & test.keys()
        for part in split[:3]:
            assert len({*zip(part.source, part.row, strict=True)}) == len(part) > 0
        for source, name in enumerate(names):
            assert split.test.count(source) > 0
            assert (name in split.dropped) is (len(_fitted(split, source)) > 0)


REALS = range(100, 130)


class TestMadeFromOtherImages:
    """Sources real, copies, unseen: copy i was made from real image i unless said otherwise."""

    SETTINGS = dataclasses.replace(
        BASE, generators=["copies", "unseen"], train_on=["copies"], paired=True
    )

    @pytest.mark.parametrize("seed", range(5))
    def test_each_is_in_the_part_of_its_original(self, sources: MakeSources, seed: int) -> None:
        made = sources({"copies": REALS}, real=REALS, copies=30, unseen=10)
        split = split_sources(made, self.SETTINGS, seed)
        for part in split[:3]:
            assert _rows(part, 1) == _rows(part, 0) != []
        assert split.dropped["copies"] == 10  # those of tested originals

    def test_order_and_number_are_of_no_account(self, sources: MakeSources) -> None:
        of = [*reversed(REALS), *REALS]
        made = sources({"copies": of}, real=REALS, copies=60, unseen=10)
        split = split_sources(made, self.SETTINGS, seed=0)
        for part in split[:3]:
            originals = {of[row] - 100 for row in _rows(part, 1)}
            assert originals <= {*_rows(part, 0)}
        assert [split.train.count(source) for source in range(2)] == [16, 16]
        assert [split.validation.count(source) for source in range(2)] == [4, 4]

    def test_too_few_shrink_both_classes(self, sources: MakeSources) -> None:
        made = sources({"copies": REALS[:10]}, real=REALS, copies=10, unseen=10)
        split = split_sources(made, self.SETTINGS, seed=0)
        assert split.train.count(0) == split.train.count(1) == len(_rows(split.train, 1))
        assert 0 < split.train.count(0) < 10
        assert any("copies has 10 images" in note for note in split.notes)

    def test_what_only_tested_images_gave_is_refused(self, sources: MakeSources) -> None:
        made = sources({"copies": REALS[20:]}, real=REALS, copies=10, unseen=10)
        with pytest.raises(UserError) as raised:
            split_sources(made, self.SETTINGS, seed=0)
        assert raised.value.key == "dataset.train_on"

    def test_near_duplicates_of_their_originals_stay(self, tmp_path: Path) -> None:
        preparation = PREPARATION._replace(image_size=32)
        made: list[Source] = []
        for name, pixels in (("real", photos(30)), ("copies", photos(30)),
                             ("unseen", photos(10, seed=2))):  # fmt: skip
            folder = tmp_path / name
            folder.mkdir()
            for number, image in enumerate(pixels):
                quality = {"copies": 90}.get(name, 95)
                Image.fromarray(image).save(folder / f"{number:03d}.jpg", quality=quality)
            if name == "copies":
                made_from = {f"{number:03d}.jpg": {"sha256": sha256}
                             for number, sha256 in enumerate(made[0].sha256)}  # fmt: skip
                (folder / "source.json").write_text(json.dumps({"made_from": made_from}))
            made.append(open_source(name, folder, preparation, tmp_path / "cache"))
        settings = dataclasses.replace(self.SETTINGS, drop_near_duplicates=True)
        split = split_sources(made, settings, seed=0)
        assert _rows(split.train, 1) == _rows(split.train, 0)
        assert split.train.count(1) == 16

    def test_one_of_a_copy_of_a_tested_image_is_dropped(self, sources: MakeSources) -> None:
        # Image 3 shows what the tested 25 shows, in another file.
        reals = [*REALS]
        reals[3] = reals[25]
        of = [*REALS]
        of[3] = reals[25]
        made = sources({"copies": of}, real=reals, copies=30, unseen=10)
        split = split_sources(made, self.SETTINGS, seed=0)
        assert 3 not in {*_rows(split.train, 1), *_rows(split.validation, 1)}

    def test_those_of_other_images_are_as_any_generator(self, sources: MakeSources) -> None:
        made = sources({"copies": range(900, 930)}, real=REALS, copies=30, unseen=10)
        plain = sources(real=REALS, copies=30, unseen=10)
        for part, expected in zip(
            split_sources(made, self.SETTINGS, 0)[:3],
            split_sources(plain, self.SETTINGS, 0)[:3],
            strict=True,
        ):
            np.testing.assert_array_equal(part.row, expected.row)

    def test_one_that_only_tests_has_tested_originals(self, sources: MakeSources) -> None:
        settings = dataclasses.replace(BASE, generators=["seen", "copies"])
        made = sources({"copies": REALS}, real=REALS, seen=30, copies=30)
        split = split_sources(made, settings, seed=0)
        assert _rows(split.test, 2) == _rows(split.test, 0)
        assert split.train.count(2) == split.validation.count(2) == 0
        few = sources({"copies": REALS[:20]}, real=REALS, seen=30, copies=20)
        with pytest.raises(UserError) as raised:
            split_sources(few, settings, seed=0)
        assert raised.value.key == "dataset.generators"

    def test_originals_and_copies_are_paired_and_the_rest_is_matched(
        self, sources: MakeSources
    ) -> None:
        settings = dataclasses.replace(
            self.SETTINGS, generators=["seen", "copies", "unseen"], train_on=["seen", "copies"]
        )
        made = sources({"copies": REALS}, real=REALS, seen=30, copies=30, unseen=10)
        split = split_sources(made, settings, seed=0)
        real, generated = split.pairs.T
        assert sorted(split.pairs.ravel().tolist()) == list(range(len(split.train)))
        assert {*split.train.source[real].tolist()} == {0}
        copies = split.train.source[generated] == 2
        assert copies.sum() == len(real) / 2 == 8
        np.testing.assert_array_equal(
            split.train.row[real[copies]], split.train.row[generated[copies]]
        )


class TestRoles:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("made", [False, True])
    def test_what_validates_neither_trains_nor_tests(
        self, sources: MakeSources, seed: int, made: bool
    ) -> None:
        settings = dataclasses.replace(BASE, validate_on=["held_out"])
        origins = {"held_out": REALS} if made else None
        opened = sources(origins, real=REALS, seen=30, unseen=10, held_out=30)
        split = split_sources(opened, settings, seed)
        assert split.train.count(3) == split.test.count(3) == 0
        assert split.validation.count(3) == split.validation.count(0) == 4
        if made:
            assert _rows(split.validation, 3) == _rows(split.validation, 0)
        without = split_sources(opened[:3], BASE, seed)
        for source in range(3):
            for part, expected in zip(split[:3], without[:3], strict=True):
                assert _rows(part, source) == _rows(expected, source)

    def test_an_unseen_real_source_only_tests(self, sources: MakeSources) -> None:
        settings = dataclasses.replace(BASE, unseen_real=["other"], generators=["seen"])
        opened = sources(real=30, other=40, seen=30)
        split = split_sources(opened, settings, seed=0)
        assert _rows(split.test, 1) == list(range(30, 40))
        assert _fitted(split, 1) == []

    @pytest.mark.parametrize(
        "changes",
        [{"unseen_real": ["real"]}, {"validate_on": ["seen"]}, {"validate_on": ["unseen"]}],
    )
    def test_a_source_has_one_role(self, changes: dict[str, list[str]]) -> None:
        with pytest.raises(UserError):
            dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]

    def test_images_in_no_part_are_not_needed(self) -> None:
        settings = dataclasses.replace(BASE, unseen_real=["other"], validate_on=["held_out"])
        assert needed_images(settings) == {
            "real": (20, 10), "other": (0, 10), "seen": (20, 10), "unseen": (0, 10),
            "held_out": (20, 0),
        }  # fmt: skip

    def test_without_generated_images_for_training_nothing_is_paired(
        self, sources: MakeSources
    ) -> None:
        settings = dataclasses.replace(BASE, train_on=[])
        split = split_sources(sources(real=REALS, seen=30, unseen=10), settings, seed=0)
        assert {*split.train.source.tolist()} == {0}
        assert split.pairs.shape == (0, 2)


class TestTooSmall:
    @pytest.mark.parametrize(
        "counts",
        [{"real": 1}, {"seen": 1}, {"seen": 2}, {"real": 2, "seen": 40}],
    )
    def test_a_source_without_images_for_all_parts_is_named(
        self, sources: MakeSources, counts: dict[str, int]
    ) -> None:
        made = sources(**({"real": 40, "seen": 40, "unseen": 10} | counts))
        with pytest.raises(UserError, match=r"The source (real|seen) has too few images"):
            split_sources(made, BASE, seed=0)

    def test_a_source_of_nothing_but_copies_of_tested_images_is_named(
        self, sources: MakeSources
    ) -> None:
        made = sources(real=30, seen=[7] * 30, unseen=10)
        with pytest.raises(UserError, match=r"too few images .*20 were dropped as copies"):
            split_sources(made, BASE, seed=0)

    def test_a_source_of_one_image_repeated_cannot_validate(self, sources: MakeSources) -> None:
        made = sources(real=30, seen=[7] * 20 + list(range(100, 110)), unseen=10)
        with pytest.raises(UserError, match=r"The source seen has too few images"):
            split_sources(made, BASE, seed=0)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"real": []}, "real"),
            ({"generators": []}, "generators"),
            ({"real": ["real", "real"]}, "real"),
            ({"generators": ["seen", "seen"]}, "generators"),
            ({"real": ["seen"]}, "real"),
            ({"real": [""]}, "real"),
            ({"real": ["a/b"]}, "real"),
            ({"generators": [".."]}, "generators"),
            ({"real": [".hidden"]}, "real"),
            ({"train_on": ["sean"]}, "train_on"),
            ({"train_on": ["real"]}, "train_on"),
            ({"folders": {"sean": "x"}}, "folders"),
            ({"train_on": ["seen", "seen"]}, "train_on"),
            *(
                ({key: value}, key)
                for key in ("train_count", "test_count", "image_size", "min_side")
                for value in (0, -1)
            ),
            *(({"validation_share": x}, "validation_share") for x in (0.0, 1.0, -0.1, math.nan)),
            *(({"max_rejected_share": x}, "max_rejected_share") for x in (-0.1, 1.1, math.nan)),
        ],
    )
    def test_what_is_out_of_range_or_contradicts_itself_is_refused(
        self, changes: dict[str, object], key: str
    ) -> None:
        with pytest.raises(UserError) as raised:
            dataclasses.replace(BASE, **changes).check_training()  # type: ignore[arg-type]
        assert raised.value.key == f"dataset.{key}"

    def test_only_one_class_detectors_train_without_generated_images(self) -> None:
        settings = dataclasses.replace(BASE, train_on=[])
        settings.check_classes(one_class=True)
        with pytest.raises(UserError) as raised:
            settings.check_classes(one_class=False)
        assert raised.value.key == "dataset.train_on"

    @pytest.mark.parametrize("changes", [{"real": []}, {"generators": []}])
    def test_what_only_tests_needs_no_training_sources(self, changes: dict[str, object]) -> None:
        dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]

    def test_a_folder_may_be_given_for_any_source(self) -> None:
        folders = {"real": "x", "unseen": "y"}
        assert dataclasses.replace(BASE, folders=folders).folders == folders
