"""Generated images made of real ones: the autoencoders, the spectrum, the source they write."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import photos, write_images
from PIL import Image
from scipy import stats

from forensics.errors import UserError
from forensics.generators import GENERATORS, resynthesis
from forensics.generators.resynthesis import (
    ACTIVATIONS,
    Architecture,
    Autoencoder,
    Critic,
    Norm,
    ResynthesisSettings,
    Upsampler,
    fit,
)
from forensics.images.spectra import profiles
from forensics.model_files import load_model
from forensics.training import autoencoders

ROOT = Path(__file__).parents[1]
GENERATE, TRAIN = ROOT / "generate.py", ROOT / "train.py"
SIDE = 32

PLAIN = Architecture(
    Upsampler.nearest,
    upsamplings=2,
    width=8,
    kernel_size=3,
    norm=Norm.none,
    activation="relu",
    activation_first=False,
    tanh=False,
    critic=False,
    steps=40,
)

Run = Callable[..., int]


def settings(**changes: Any) -> ResynthesisSettings:  # noqa: ANN401
    usual: dict[str, Any] = {
        "count": 6,
        "families": [*Upsampler],
        "steps": [3, 5],
        "per_image": 1,
        "seed": 0,
    }
    return ResynthesisSettings(**(usual | changes))


class TestArchitectures:
    def test_families_come_in_turns_and_all_else_is_drawn(self) -> None:
        drawn = [one.architecture for one in settings(count=200).build(SIDE).autoencoders]
        assert [one.upsampler for one in drawn[:12]] == [*Upsampler] * 2
        for name, values in {
            "upsamplings": {1, 2, 3, 4, 5},
            "kernel_size": {3, 5},
            "norm": {*Norm},
            "activation": {*ACTIVATIONS},
            "activation_first": {False, True},
            "tanh": {False, True},
            "critic": {False, True},
            "steps": {3, 4, 5},
        }.items():
            assert {getattr(one, name) for one in drawn} == values

    def test_the_seed_decides(self) -> None:
        first, again, other = (
            [one.architecture for one in settings(seed=seed).build(SIDE).autoencoders]
            for seed in (0, 0, 1)
        )
        assert first == again != other

    @pytest.mark.parametrize("upsampler", Upsampler)
    @pytest.mark.parametrize("norm", Norm)
    @pytest.mark.parametrize("upsamplings", [1, 2, 5])
    def test_an_image_keeps_its_size(
        self, upsampler: Upsampler, norm: Norm, upsamplings: int
    ) -> None:
        one = dataclasses.replace(
            PLAIN, upsampler=upsampler, norm=norm, upsamplings=upsamplings, tanh=True, kernel_size=5
        )
        images = torch.zeros(2, 3, 32, 64)
        assert Autoencoder(one)(images).shape == images.shape

    def test_no_more_steps_than_an_image_can_be_halved(self) -> None:
        drawn = [one.architecture for one in settings(count=50).build(24).autoencoders]
        assert {one.upsamplings for one in drawn} == {1, 2, 3}

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"count": 0}, "generator.count"),
            ({"per_image": 0}, "generator.per_image"),
            ({"seed": -1}, "generator.seed"),
            ({"families": []}, "generator.families"),
            ({"steps": [5, 3]}, "generator.steps"),
            ({"steps": [3]}, "generator.steps"),
            ({"spectrum": [0.5]}, "generator.spectrum"),
            ({"spectrum": [0.6, 0.5]}, "generator.spectrum"),
            ({"spectrum": [-0.1, 1.0]}, "generator.spectrum"),
            ({"spectrum": [0.0, 1.1]}, "generator.spectrum"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, changes: dict[str, Any], key: str) -> None:
        with pytest.raises(UserError) as raised:
            settings(**changes)
        assert raised.value.key == key

    def test_an_odd_size_is_refused(self) -> None:
        with pytest.raises(UserError) as raised:
            settings().build(25)
        assert raised.value.key == "dataset.image_size"


class TestSpectrum:
    def test_shares_are_drawn_from_their_range(self) -> None:
        model = settings(spectrum=[0.2, 0.6]).build(SIDE)
        shares = [model.chosen(number, 0)[1] for number in range(400)]
        assert stats.kstest(shares, "uniform", (0.2, 0.4)).pvalue > 1e-3

    def test_the_share_moves_the_energy_to_the_originals(self) -> None:
        rows = photos(4, 64)
        errors = []
        for share in (0.0, 1.0):
            torch.manual_seed(0)
            alike = settings(count=1, families=["bilinear"], spectrum=[share, share])
            made = (alike.build(64).eval().remake(rows, range(4), 0) + 1) * 127.5
            # As the audit measures it, which clipping changes.
            difference = profiles(made.permute(0, 2, 3, 1).numpy()) - profiles(rows)
            errors.append(np.abs(difference[:, 8:28]).mean())
        assert errors[1] < errors[0] / 3


class TestFit:
    @pytest.mark.parametrize("critic", [False, True])
    def test_training_brings_reconstructions_nearer(self, critic: bool) -> None:
        rows = photos(20, seed=0, side=SIDE)
        errors = []
        for steps in (1, 80):
            torch.manual_seed(0)
            one = Autoencoder(dataclasses.replace(PLAIN, critic=critic, steps=steps))
            errors.append(fit(one, Critic(), rows, np.random.default_rng(0)))
        assert errors[1] < 0.7 * errors[0]

    def test_the_error_is_in_grey_levels(self) -> None:
        torch.manual_seed(0)
        one = Autoencoder(dataclasses.replace(PLAIN, steps=1))
        for parameter in one.parameters():
            parameter.data.zero_()  # so that it gives 0, grey level 127.5
        rows = np.full((4, SIDE, SIDE, 3), 100, np.uint8)
        assert fit(one, Critic(), rows, np.random.default_rng(0)) == pytest.approx(27.5, rel=1e-4)

    def test_draws_decide_the_weights(self) -> None:
        rows = photos(20, seed=0, side=SIDE)

        def weights(seed: int) -> torch.Tensor:
            torch.manual_seed(0)
            one = Autoencoder(dataclasses.replace(PLAIN, critic=True, steps=5))
            fit(one, Critic(), rows, np.random.default_rng(seed))
            return torch.cat([value.flatten() for value in one.state_dict().values()])

        assert torch.equal(weights(0), weights(0))
        assert not torch.equal(weights(0), weights(1))


@pytest.fixture
def run(run_program: Callable[..., int], tmp_path: Path) -> Run:
    """Run generate.py on 24 faces of noise."""
    write_images(tmp_path / "faces" / "real", 24)
    usual = [
        "generator=resynthesis",
        "generator.count=3",
        "generator.steps=[2,4]",
        "dataset.root=faces",
        "real=real",
        "dataset.image_size=16",
        "images=20",
        "trainer=cpu",
        "cache_dir=cache",
        "name=x",
    ]

    def run(*more: str, again: bool = False) -> int:
        return run_program(GENERATE, *([] if again else usual), *more)

    return run


def pixels(folder: Path) -> list[bytes]:
    return [np.asarray(Image.open(path)).tobytes() for path in sorted(folder.glob("*.png"))]


@pytest.mark.slow
class TestASource:
    def test_says_what_each_image_was_made_from_and_by_which_decoder(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("generator.per_image=2") == 0
        written = tmp_path / "faces" / "resynthesis"
        card = json.loads((written / "source.json").read_text())
        assert len(pixels(written)) == len(card["made_from"]) == 20
        faces = sorted((tmp_path / "faces" / "real").iterdir())
        for number, (name, made) in enumerate(sorted(card["made_from"].items())):
            assert name == f"{number:06d}.png"
            content = faces[number // 2].read_bytes()
            assert made["sha256"] == hashlib.sha256(content).hexdigest()
        assert {made["decoder"] for made in card["made_from"].values()} == {0, 1, 2}
        assert [one["upsampler"] for one in card["decoders"]] == [*Upsampler][:3]
        assert all(one["error_grey_levels"] > 0 for one in card["decoders"])
        model, _, sha256 = load_model(tmp_path / "outputs/x/generator.safetensors", GENERATORS, {})
        assert isinstance(model, resynthesis.Resynthesis)
        assert card["generator_sha256"] == sha256
        assert model.per_image == 2

    def test_the_same_command_gives_the_same_images_and_other_seeds_others(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("source=a") == run("source=b", "name=y") == 0
        assert run("source=c", "name=z", "seed=1") == 0
        one, again, other = (pixels(tmp_path / "faces" / name) for name in "abc")
        assert one == again != other

    def test_an_interrupted_training_resumes_to_the_same_images(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert run("source=complete", "name=y") == 0
        fitted: list[Any] = []

        def stopping(*args: Any) -> float:  # noqa: ANN401
            if len(fitted) == 1:
                raise KeyboardInterrupt
            fitted.append(args)
            return fit(*args)

        with monkeypatch.context() as patched:
            patched.setattr(autoencoders, "fit", stopping)
            patched.setattr(autoencoders, "in_order", lambda work, items, at_once: map(work, items))
            assert run("source=part") == 130
        assert not (tmp_path / "faces" / "part").exists()
        assert run("resume=outputs/x", "images=18", again=True) == 1
        assert "images" in capfd.readouterr().err
        assert run("resume=outputs/x", again=True) == 0
        assert pixels(tmp_path / "faces" / "part") == pixels(tmp_path / "faces" / "complete")

    def test_trained_autoencoders_remake_another_source(self, run: Run, tmp_path: Path) -> None:
        assert run("generator.per_image=2") == 0
        write_images(tmp_path / "faces" / "other", 5, seed=1)
        asked = ["sample=outputs/x", "dataset.root=faces", "dataset.image_size=16", "real=other",
                 "source=remade", "cache_dir=cache"]  # fmt: skip
        assert run(*asked, "images=11", again=True) == 1
        assert run(*asked, "images=9", again=True) == 0
        card = json.loads((tmp_path / "faces" / "remade" / "source.json").read_text())
        other = {hashlib.sha256(path.read_bytes()).hexdigest()
                 for path in (tmp_path / "faces" / "other").iterdir()}  # fmt: skip
        assert {made["sha256"] for made in card["made_from"].values()} == other

    def test_more_images_than_there_are_originals_are_refused(
        self, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("images=25") == 1
        assert "images must" in capfd.readouterr().err


@pytest.mark.slow
def test_training_never_sees_what_was_made_of_a_tested_image(
    run: Run, run_program: Callable[..., int], arguments: list[str], tmp_path: Path
) -> None:
    # All 30 real images are remade, of which the last 10 test.
    write_images(tmp_path / "faces" / "real", 30)
    assert run("images=30") == 0
    given = ["dataset.generators=[resynthesis,unseen]", "dataset.train_on=[resynthesis]",
             "dataset.paired=true", "preprocess=noise", "audit=off", "name=t"]  # fmt: skip
    assert run_program(TRAIN, *arguments, *given) == 0
    result = json.loads((tmp_path / "outputs/t/result.json").read_text())
    assert result["images"]["train"]["resynthesis"] == 16
    assert result["images"]["validation"]["resynthesis"] == 4
    assert result["dropped_from_training"]["resynthesis"] == 10
    made_from = json.loads((tmp_path / "faces/resynthesis/source.json").read_text())["made_from"]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
               for path in (tmp_path / "faces" / "real").iterdir()}  # fmt: skip
    scored = pq.read_table(tmp_path / "outputs/t/scores.parquet").to_pylist()
    originals: dict[str, set[str]] = {"validation": set(), "test": set()}
    real: dict[str, set[str]] = {"validation": set(), "test": set()}
    for row in scored:
        if row["source"] == "resynthesis":
            originals[row["split"]].add(made_from[row["path"]]["sha256"])
        elif row["source"] == "real":
            real[row["split"]].add(digests[row["path"]])
    assert originals == real
