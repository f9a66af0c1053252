"""Layouts of data sets, each built here: classes by name, not by order; ambiguity refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_images

from forensics.data.ingest.classes import categories, is_real, part_of
from forensics.data.ingest.layouts import Images, Layout, find_layout
from forensics.errors import UserError

Found = dict[tuple[str, str | None], tuple[list[str], list[str], int, int]]


def _write(root: Path, *folders: str) -> None:
    """One image in each of the folders, two where it says generated."""
    for seed, folder in enumerate(folders):
        write_images(root / folder, 2 if is_real(Path(folder).name) is False else 1, seed)


def _found(layout: Layout) -> Found:
    return {
        (one.generator, one.part): (
            [str(images.path.relative_to(layout.root)) for images in one.generated],
            [str(images.path.relative_to(layout.root)) for images in one.real],
            sum(images.count for images in one.generated),
            sum(images.count for images in one.real),
        )
        for one in layout.compared
    }


@pytest.mark.parametrize(
    ("name", "real"),
    [
        *((name, True) for name in ("0_real", "REAL", "nature", "real_test", "original_sequences")),
        *((name, False) for name in ("1_fake", "FAKE", "ai", "fake_train", "training-fake")),
        *((name, None) for name in ("real_madrid", "real_fake", "0", "train", "imagenet_ai_04")),
    ],
)
def test_classes_are_told_by_name(name: str, real: bool | None) -> None:
    assert is_real(name) is real


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(("valid", "validation"), ("Val", "validation"), ("fake_train", "train")),
        *(("testing", "test"), ("train_station", None), ("real", None), ("train_test", None)),
    ],
)
def test_parts_are_told_by_name(name: str, part: str | None) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["a/bus/x", "a/car/x", "a/train/x", "b"], {"a/train"}),
        (["bus", "car", "train"], {"train"}),
        (["bus", "car", "train", "test"], set()),
        (["dalle2", "real", "train"], set()),  # beside classes and generators
        (["bus/x", "car/x", "train/y"], set()),
        (["bus", "train"], set()),
    ],
)
def test_categories_that_are_named_like_a_part(folders: list[str], found: set[str]) -> None:
    assert categories(folders) == found


class TestFolders:
    @pytest.mark.parametrize(
        ("real", "fake"), [("0_real", "1_fake"), ("real", "fake"), ("REAL", "FAKE"),
                           ("nature", "ai"), ("original", "manipulated")]
    )  # fmt: skip
    def test_generators_with_and_without_categories(
        self, tmp_path: Path, real: str, fake: str
    ) -> None:
        of_progan = [
            f"progan/{name}/{class_}" for name in ("car", "cat") for class_ in (real, fake)
        ]
        _write(tmp_path, *of_progan, f"biggan/{real}", f"biggan/{fake}")
        assert _found(find_layout(tmp_path)) == {
            ("biggan", None): ([f"biggan/{fake}"], [f"biggan/{real}"], 2, 1),
            ("progan", None): (
                [f"progan/car/{fake}", f"progan/cat/{fake}"],
                [f"progan/car/{real}", f"progan/cat/{real}"],
                *(4, 2),
            ),
        }

    def test_parts_of_one_generator(self, tmp_path: Path) -> None:
        root = tmp_path / "140k"
        _write(
            root, *(f"{part}/{c}" for part in ("train", "valid", "test") for c in ("real", "fake"))
        )
        assert _found(find_layout(root)) == {
            ("140k", part): ([f"{folder}/fake"], [f"{folder}/real"], 2, 1)
            for folder, part in (("train", "train"), ("valid", "validation"), ("test", "test"))
        }

    def test_parts_below_the_generator(self, tmp_path: Path) -> None:
        below = "ADM/imagenet_ai_0508_adm", "VQDM/imagenet_ai_0419_vqdm"
        _write(tmp_path, *(f"{b}/{p}/{c}" for b in below for p in ("train", "val")
                           for c in ("ai", "nature")))  # fmt: skip
        found = _found(find_layout(tmp_path))
        assert set(found) == {
            (name, part) for name in ("ADM", "VQDM") for part in ("train", "validation")
        }
        folder = "ADM/imagenet_ai_0508_adm/val"
        assert found["ADM", "validation"] == ([f"{folder}/ai"], [f"{folder}/nature"], 2, 1)

    @pytest.mark.parametrize("above", ["", "test/"])
    def test_trains_beside_other_categories_are_no_part(self, tmp_path: Path, above: str) -> None:
        """ForenSynths has the categories of LSUN, train among them."""
        names = ("bus", "car", "train")
        _write(tmp_path, *(f"{above}{place}/{class_}" for class_ in ("0_real", "1_fake")
                           for place in (*(f"progan/{name}" for name in names), "biggan"))
        )  # fmt: skip
        part = "test" if above else None
        assert _found(find_layout(tmp_path)) == {
            ("biggan", part): ([f"{above}biggan/1_fake"], [f"{above}biggan/0_real"], 2, 1),
            ("progan", part): (
                [f"{above}progan/{name}/1_fake" for name in names],
                [f"{above}progan/{name}/0_real" for name in names],
                *(6, 3),
            ),
        }

    @pytest.mark.parametrize(
        "beside",
        [
            pytest.param(["bus"], id="one other"),
            pytest.param(["bus", "val", "test"], id="other parts"),
            pytest.param(["bus/a", "car/a", "cat/a"], id="others with folders of their own"),
        ],
    )
    def test_train_is_a_part_unless_it_is_one_of_several_alike(
        self, tmp_path: Path, beside: list[str]
    ) -> None:
        _write(tmp_path, *(f"progan/{name}/{class_}" for name in ("train", *beside)
                           for class_ in ("real", "fake")))  # fmt: skip
        parts = {part for _, part in _found(find_layout(tmp_path))}
        assert {"train", None} <= parts

    def test_parts_in_the_name_of_the_class(self, tmp_path: Path) -> None:
        root = tmp_path / "wild"
        _write(root, *(f"{c}_{p}/{n}" for c in ("real", "fake") for p in ("train", "test")
                       for n in (1, 2)))  # fmt: skip
        assert _found(find_layout(root)) == {
            ("wild", part): ([f"fake_{part}"], [f"real_{part}"], 2, 2) for part in ("train", "test")
        }

    @pytest.mark.parametrize("inside", [False, True])
    def test_generators_alone_need_named_real_images(self, tmp_path: Path, inside: bool) -> None:
        root = tmp_path / "synthbuster"
        _write(root, "dalle2", "glide/frames/01", "glide/frames/02")
        with pytest.raises(UserError, match=r"no real images for dalle2"):
            find_layout(root)
        real = root / "raise" if inside else tmp_path / "raise"
        write_images(real, 5, seed=9)
        layout = find_layout(root, [real])
        assert [(one.generator, one.generated[0].count) for one in layout.compared] == [
            *(("dalle2", 1), ("glide", 2))
        ]
        for one in layout.compared:
            assert [(images.path, images.count) for images in one.real] == [(real, 5)]
        assert "glide: 2 in glide; real 5 in" in str(layout)

    def test_one_real_folder_beside_generators_is_that_of_all(self, tmp_path: Path) -> None:
        _write(tmp_path, "dalle2", "glide", "real")
        found = _found(find_layout(tmp_path))
        assert found == {(name, None): ([name], ["real"], 1, 1) for name in ("dalle2", "glide")}

    def test_named_real_images_are_of_those_without_their_own(self, tmp_path: Path) -> None:
        _write(tmp_path, "a/0_real", "a/1_fake", "b/1_fake")
        with pytest.raises(UserError, match="no real images for b"):
            find_layout(tmp_path)
        write_images(tmp_path / "reals", 3, seed=9)
        layout = find_layout(tmp_path, [tmp_path / "reals"])
        assert _found(layout)["a", None][1] == ["a/0_real"]
        assert _found(layout)["b", None][1] == ["reals"]

    def test_the_mapping_is_said_in_lines(self, tmp_path: Path) -> None:
        _write(tmp_path, "p/car/0_real", "p/car/1_fake", "p/cat/0_real", "p/cat/1_fake")
        assert str(find_layout(tmp_path)).splitlines() == [
            f"{tmp_path}:",
            "  p: 4 in p/car/1_fake and 1 more folders; real 2 in p/car/0_real and 1 more folders",
        ]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        pytest.param(["a/real", "a/fake", "a/other"], "a/other", id="an unknown class"),
        pytest.param(["real", "fake", ""], "name no class", id="images beside the classes"),
        pytest.param(["a/real", "a/original", "a/fake"], "side by side", id="two real folders"),
        pytest.param(["a/real/fake"], "contradict", id="both classes on a path"),
        pytest.param(["train/a/test/fake", "real"], "contradict", id="two parts on a path"),
        pytest.param(["a/real", "a/fake", "b/real"], "no generated images of b", id="real alone"),
        pytest.param(["real"], "no generated images", id="nothing but real"),
        pytest.param(["", "a"], "beside folders", id="images and folders"),
        pytest.param([], "no image", id="nothing"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, folders: list[str], said: str) -> None:
    _write(tmp_path, *folders)
    with pytest.raises(UserError, match=said) as caught:
        find_layout(tmp_path)
    assert caught.value.key == str(tmp_path)


def test_real_images_that_no_generator_needs_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "set/a/real", "set/a/fake", "more")
    with pytest.raises(UserError, match="its own real images"):
        find_layout(tmp_path / "set", [tmp_path / "more"])


def test_images_and_parquet_are_two_layouts(tmp_path: Path) -> None:
    _write(tmp_path, "real", "fake")
    pq.write_table(pa.table({"image": [b"x"], "label": ["real"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="both parquet files"):
        find_layout(tmp_path)


class TestParquet:
    def _of(self, tmp_path: Path, **columns: list[object]) -> Layout:
        path = tmp_path / "set.parquet"
        count = len(next(iter(columns.values())))
        pq.write_table(pa.table({"image": [b"x"] * count, **columns}), path)
        return find_layout(path)

    def test_labels_with_a_column_of_generators(self, tmp_path: Path) -> None:
        layout = self._of(
            tmp_path,
            label=["fake", "real", "fake", "fake"],
            generator=["sd", "nature", "glide", "sd"],
        )
        assert [
            (one.generator, one.generated[0], one.real[0].labels) for one in layout.compared
        ] == [
            (
                name,
                Images(layout.root, (f"generator={name}", "label=fake"), count),
                ("label=real",),
            )
            for name, count in (("glide", 1), ("sd", 2))
        ]

    def test_manifests_of_prepared_folders_are_no_images(self, tmp_path: Path) -> None:
        _write(tmp_path, "a/real", "a/fake")
        pq.write_table(pa.table({"x": [1]}), tmp_path / "a" / "fake" / "manifest.parquet")
        assert set(_found(find_layout(tmp_path))) == {("a", None)}

    def test_generated_images_without_a_generator_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="without a model"):
            self._of(tmp_path, label=["real", "fake", "fake"], model=["x", "y", None])

    def test_labels_alone(self, tmp_path: Path) -> None:
        (one,) = self._of(tmp_path, label=["FAKE", "REAL", "FAKE"]).compared
        assert (one.generator, one.generated[0].labels, one.real[0].labels) == (
            *("set", ("label=FAKE",), ("label=REAL",)),
        )

    def test_generators_and_real_in_one_column(self, tmp_path: Path) -> None:
        layout = self._of(tmp_path, model=["sdxl", "real", "flux"])
        assert [one.generator for one in layout.compared] == ["flux", "sdxl"]
        assert {one.real[0].labels for one in layout.compared} == {("model=real",)}

    @pytest.mark.parametrize("own", [True, False])
    def test_real_images_of_each_generator_or_of_all(self, tmp_path: Path, own: bool) -> None:
        layout = self._of(
            tmp_path,
            label=["fake", "real", "fake", "real"],
            generator=["a", "a", "b", "b" if own else None],
        )
        of_all = Images(layout.root, ("label=real",), 2)
        assert {one.generator: one.real[0] for one in layout.compared} == {
            name: Images(layout.root, (f"generator={name}", "label=real"), 1) if own else of_all
            for name in "ab"
        }

    def test_parts_by_the_names_of_files_or_a_column(self, tmp_path: Path) -> None:
        columns = {"image": [b"x"] * 3, "label": ["real", "fake", "fake"]}
        (tmp_path / "files").mkdir()
        for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
            pq.write_table(pa.table(columns), tmp_path / "files" / f"{name}.parquet")
        by_names = find_layout(tmp_path / "files")
        found = {
            one.part: (one.generated[0].labels, one.generated[0].count, one.real[0].count)
            for one in by_names.compared
        }
        assert found == {
            "train": (("label=fake", "split=train"), 4, 2),
            "test": (("label=fake", "split=test"), 2, 1),
        }
        by_column = self._of(
            tmp_path, label=["real", "fake"] * 2, split=["train", "train", "val", "val"]
        )
        assert [(one.part, one.real[0].labels) for one in by_column.compared] == [
            ("train", ("label=real", "split=train")),
            ("validation", ("label=real", "split=val")),
        ]
        (tmp_path / "files" / "test-00000-of-00001.parquet").unlink()
        assert [one.part for one in find_layout(tmp_path / "files").compared] == [None]
        with pytest.raises(UserError, match="no real images for set"):
            self._of(tmp_path, label=["real", "fake", "fake"], split=["train", "train", "test"])

    @pytest.mark.parametrize(
        "columns",
        [
            {"label": [0, 1, 1]},  # which is real?
            {"label": ["real", "fake", "fake"], "target": ["fake", "real", "fake"]},
            {"label": ["real", "fake", None]},
            {"id": [0, 1, 2]},
            {"split": ["train", "test", "test"]},
        ],
    )
    def test_what_does_not_say_its_classes_is_refused(
        self, tmp_path: Path, columns: dict[str, list[object]]
    ) -> None:
        with pytest.raises(UserError, match=r"label|column") as raised:
            self._of(tmp_path, **columns)
        assert "split=train or" not in str(raised.value)
        assert raised.value.key == str(tmp_path / "set.parquet")
