"""`generate.py` as a user meets it: what it prints, what it leaves, how it ends."""

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZE, started, stop, write_images
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forensics import runs
from forensics.data import faces as faces_module
from forensics.data.faces import EndlessBatches
from forensics.data.opening import open_source
from forensics.data.sources import Preparation
from forensics.errors import UserError
from forensics.generators import GENERATORS, Gan, sampling
from forensics.generators.dcgan import Dcgan
from forensics.images.geometry import ResizeFilter
from forensics.model_files import load_model
from forensics.training import generator_task

GENERATE = Path(__file__).parents[1] / "generate.py"

TINY = {
    "dcgan": ["generator.width=4"],
    "wgan_gp": ["generator.width=4", "generator.critic_steps=2"],
    "pggan": [
        "generator.latent_size=8",
        "generator.channels=[8,8,4]",
        "generator.stable_images=16",
        "generator.fade_images=16",
    ],
}
"""Small networks; PGGAN's grows twice within ten steps of eight images."""

Run = Callable[..., int]


@pytest.fixture
def run(run_program: Callable[..., int], tmp_path: Path) -> Run:
    """Run generate.py in this process on faces of noise; returns the exit code."""
    write_images(tmp_path / "faces" / "real", 24)
    usual = [
        f"dataset.root={tmp_path}/faces",
        "real=real",
        f"dataset.image_size={SIZE}",
        "images=7",
        "max_epochs=2",
        "steps_per_epoch=5",
        "batch_size=8",
        "trainer=cpu",
        f"cache_dir={tmp_path}/cache",
    ]

    def run(*more: str, generator: str = "dcgan", again: bool = False) -> int:
        if again:
            return run_program(GENERATE, *more)
        return run_program(GENERATE, f"generator={generator}", *usual, *TINY[generator], *more)

    return run


@pytest.fixture(autouse=True)
def untrained_samples_may_be_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps make no variety; `TestCollapse` looks at that alone."""
    monkeypatch.setattr(generator_task, "collapsed", lambda images: None)


def images_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def state_of(folder: Path) -> dict[str, Any]:
    loaded = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {"weights": loaded["state_dict"], "optimizers": loaded["optimizer_states"]}


def assert_same(one: Any, other: Any) -> None:  # noqa: ANN401
    """Compare nested containers of tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.mark.slow
class TestARun:
    @pytest.mark.parametrize("generator", TINY)
    def test_leaves_a_folder_that_is_a_source(
        self,
        generator: str,
        run: Run,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert run("name=x", generator=generator) == 0
        said = "".join(capfd.readouterr())
        assert f"7 images in faces/{generator}" in said
        assert "Run folder: outputs/x" in said
        assert "arning" not in said

        written = tmp_path / "faces" / generator
        assert sorted(path.name for path in written.iterdir()) == [
            *(f"{number:06d}.png" for number in range(7)),
            "source.json",
        ]
        preparation = Preparation(SIZE, ResizeFilter.lanczos, SIZE, 0.0)
        source = open_source(generator, written, preparation, tmp_path / "cache")
        assert len(source) == 7
        assert len(set(source.digests)) == 7

        card = json.loads((written / "source.json").read_text())
        assert (card["generator"], card["trained_on"], card["faces"]) == (generator, "real", 24)
        assert (card["steps"], card["seed"], card["images"]) == (10, 0, 7)
        assert card["toy"] is False
        assert set(card["quality"]) > {"sliced_wasserstein", "ms_ssim", "shortcuts", "nearest"}

        # The file that the images are of makes them again.
        folder = tmp_path / "outputs" / "x"
        gan, _, sha256 = load_model(folder / "generator.safetensors", GENERATORS, {})
        assert card["generator_sha256"] == sha256
        assert isinstance(gan, Gan)
        result = json.loads((folder / "result.json").read_text())
        assert result["source"] == card

        tags = EventAccumulator(str(folder)).Reload().Tags()
        assert "samples" in tags["images"]
        assert {"train/critic_loss", "train/generator_loss"} <= set(tags["scalars"])

    def test_shows_the_critic_every_face_before_any_again(self) -> None:
        shown: list[int] = []
        batches = EndlessBatches(24, 8, per_epoch=2, seed=3, rank=0, devices=1)
        for epoch in range(6):
            batches.set_epoch(epoch)
            for place in batches:
                assert place.number == len(shown) // 8
                shown += place.positions.tolist()
        orders = [tuple(shown[start : start + 24]) for start in range(0, len(shown), 24)]
        assert all(sorted(order) == list(range(24)) for order in orders)
        assert len(set(orders)) == len(orders) == 4

    @pytest.mark.parametrize("devices", [2, 4])
    def test_devices_share_its_batches(self, devices: int) -> None:
        whole = EndlessBatches(23, 8, 5, 0, 0, 1)
        parts = [EndlessBatches(23, 8, 5, 0, rank, devices) for rank in range(devices)]
        for expected, *shares in zip(whole, *parts, strict=True):
            assert {len(share.positions) for share in shares} == {8 // devices}
            together = np.concatenate([share.positions for share in shares])
            assert sorted(together) == sorted(expected.positions)


@pytest.mark.slow
class TestSampling:
    def test_the_same_seed_gives_the_same_images_and_another_others(
        self, run: Run, tmp_path: Path
    ) -> None:
        assert run("name=x", "images=60") == 0
        first = images_of(tmp_path / "faces" / "dcgan")
        assert len(first) == 60
        again = ["sample=outputs/x", "images=55"]
        assert run(*again, "source=again", again=True) == 0
        assert run(*again, "source=other", "seed=7", again=True) == 0
        second, other = (images_of(tmp_path / "faces" / name) for name in ("again", "other"))
        assert second == dict(list(first.items())[:55])
        assert not set(other.values()) & set(first.values())

    def test_what_was_interrupted_goes_on(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run("name=x", "images=60", "source=complete") == 0
        sample, calls = Dcgan.sample, []

        def stopping(self: Dcgan, latents: torch.Tensor) -> torch.Tensor:
            calls.append(len(latents))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return sample(self, latents)

        asked = ["sample=outputs/x", "images=60", "source=part"]
        with monkeypatch.context() as patched:
            patched.setattr(Dcgan, "sample", stopping)
            assert run(*asked, again=True) == 130
        part = tmp_path / "faces" / "part"
        # One of two blocks was made, whichever came first.
        assert len(images_of(part)) in (sampling.AT_ONCE, 60 - sampling.AT_ONCE)
        assert not (part / "source.json").exists()
        before = {path: path.stat().st_mtime_ns for path in part.glob("*.png")}
        assert run(*asked, again=True) == 0
        assert images_of(part) == images_of(tmp_path / "faces" / "complete")
        assert before == {path: path.stat().st_mtime_ns for path in before}
        assert not list(part.glob(".*"))

    def test_never_writes_over_what_is_there(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run("name=x") == 0
        folder = tmp_path / "faces" / "dcgan"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert run("sample=outputs/x", "seed=7", again=True) == 1
        assert "faces/dcgan holds images of another generator or seed" in capfd.readouterr().err
        assert before == {path.name: path.read_bytes() for path in folder.iterdir()}

        assert run("sample=outputs/x", "source=real", again=True) == 1
        assert "faces/real holds images that were not made here" in capfd.readouterr().err
        assert len(list((tmp_path / "faces" / "real").iterdir())) == 24

    def test_more_can_be_added_to_the_same(self, run: Run, tmp_path: Path) -> None:
        assert run("name=x") == 0
        folder = tmp_path / "faces" / "dcgan"
        first = images_of(folder)
        assert run("sample=outputs/x", "images=9", again=True) == 0
        more = images_of(folder)
        assert len(more) == 9
        assert first.items() <= more.items()
        assert json.loads((folder / "source.json").read_text())["images"] == 9


@pytest.mark.slow
class TestResume:
    @pytest.mark.parametrize("generator", TINY)
    def test_more_epochs_give_the_state_of_one_long_run(
        self, generator: str, run: Run, tmp_path: Path
    ) -> None:
        no_images = ["images=0"]
        assert run("name=long", "max_epochs=3", *no_images, generator=generator) == 0
        assert run("name=short", "max_epochs=1", *no_images, generator=generator) == 0
        assert run("resume=outputs/short", "max_epochs=3", again=True) == 0
        outputs = tmp_path / "outputs"
        assert_same(state_of(outputs / "long"), state_of(outputs / "short"))

    @pytest.mark.slow
    def test_after_kill_9_in_mid_fade_in_gives_the_uninterrupted_state(
        self, run: Run, tmp_path: Path
    ) -> None:
        dying = tmp_path / "generate.py"
        dying.write_text(
            "import os, runpy, signal, sys\n"
            f"sys.path.insert(0, {str(GENERATE.parent)!r})\n"
            "from forensics.training import generator_task\n"
            "generator_task.collapsed = lambda images: None\n"
            "step = generator_task.GeneratorTask.training_step\n"
            "def dying(self, batch, batch_idx):\n"
            "    if batch.number == 8:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return step(self, batch, batch_idx)\n"
            "generator_task.GeneratorTask.training_step = dying\n"
            f"sys.argv[0] = {str(GENERATE)!r}\n"
            f"runpy.run_path({str(GENERATE)!r}, run_name='__main__')\n"
        )
        assert run("name=complete", "images=0", generator="pggan") == 0
        record = (tmp_path / "outputs/complete/.hydra/overrides.yaml").read_text().splitlines()
        given = [line.removeprefix("- ").strip("'") for line in record]
        given = [one for one in given if not one.startswith("name=")]
        process = started(dying, *given, "name=killed")
        said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
        assert run("resume=outputs/killed", again=True) == 0
        outputs = tmp_path / "outputs"
        assert_same(state_of(outputs / "complete"), state_of(outputs / "killed"))

    def test_stopped_in_sampling_it_goes_on(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(sampling, "finish", stop)
            assert run("name=x") == 130
        assert "python generate.py resume=outputs/x" in capfd.readouterr().err
        # At another time and commit the generator is still the same.
        monkeypatch.setattr(runs, "provenance", lambda device: {"finished": "later"})
        assert run("resume=outputs/x", again=True) == 0
        assert len(images_of(tmp_path / "faces" / "dcgan")) == 7


class TestCollapse:
    def test_stops_and_keeps_the_last_good_state(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        verdicts = iter(["All grey.", None, "All grey."])
        monkeypatch.setattr(generator_task, "collapsed", lambda images: next(verdicts))
        monkeypatch.setattr(generator_task, "varied", lambda images: True)
        assert run("name=x", "max_epochs=4") == 1
        said = capfd.readouterr().err
        assert re.search(r"collapsed in epoch 3: All grey. Lower generator.learning_rate", said)
        checkpoint = tmp_path / "outputs/x/checkpoints/last.ckpt"
        assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
        assert "collapsed" in json.loads((tmp_path / "outputs/x/failed.json").read_text())["error"]

    def test_the_next_seeds_are_tried_and_the_one_reached_is_kept(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        seen: list[tuple[float, float]] = []

        def noise(generated: np.ndarray, real: np.ndarray) -> str | None:
            seen.append((float(generated.max()), float(real.max())))
            return "Its images are noise." if len(seen) <= 2 else None

        monkeypatch.setattr(Dcgan, "learns_within", 7)  # in the second epoch
        monkeypatch.setattr(generator_task, "without_structure", noise)
        with monkeypatch.context() as patched:
            patched.setattr(sampling, "finish", stop)
            assert run("name=x", "seed=3", "retry_seeds=2") == 130
        said = " ".join(capfd.readouterr().out.split())
        assert "does not learn with seed=3, as seen after 7 steps" in said
        assert "Next: seed=5" in said
        assert run("resume=outputs/x", again=True) == 0
        assert len(seen) == 3
        assert all(50 < high <= 255 for pair in seen for high in pair)  # grey levels, both
        source = json.loads((tmp_path / "faces/dcgan/source.json").read_text())
        assert [one["seed"] for one in source["tried_seeds"]] == [3, 4]
        assert "7 steps" in source["tried_seeds"][0]["reason"]
        assert source["training_seed"] == 5
        result = json.loads((tmp_path / "outputs/x/result.json").read_text())
        assert result["settings"]["seed"] == 5
        # Nothing of the seeds before is left in the one that was reached.
        assert run("name=y", "seed=5", "source=again") == 0
        assert_same(state_of(tmp_path / "outputs/x"), state_of(tmp_path / "outputs/y"))
        assert images_of(tmp_path / "faces/dcgan") == images_of(tmp_path / "faces/again")

    def test_says_so_where_no_seed_is_left(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setattr(Dcgan, "learns_within", 3)
        monkeypatch.setattr(generator_task, "without_structure", lambda *_: "All noise.")
        assert run("name=x", "retry_seeds=1") == 1
        assert "does not learn with seed=1, as seen after 3 steps. All noise" in (
            capfd.readouterr().err
        )
        assert not list((tmp_path / "faces").glob("dcgan/*"))

    def test_a_quick_one_writes_a_source_of_its_own(self, run: Run, tmp_path: Path) -> None:
        assert run("name=x", "debug=quick", "images=40") == 0
        assert not (tmp_path / "faces/dcgan").exists()
        source = json.loads((tmp_path / "faces/dcgan_debug/source.json").read_text())
        assert source["debug"] is True
        assert (source["steps"], source["images"]) == (2, 16)
        assert json.loads((tmp_path / "outputs/x/result.json").read_text())["debug"] is True

    def test_does_not_stop_what_never_had_variety(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verdicts = iter(["All grey.", None, "All grey."])
        monkeypatch.setattr(generator_task, "collapsed", lambda images: next(verdicts))
        monkeypatch.setattr(generator_task, "varied", lambda images: False)
        assert run("max_epochs=3") == 0

    def test_a_loss_that_is_no_number_stops(
        self,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(
            Dcgan,
            "generator_loss",
            lambda self, count, draws: self.generator.project.weight.sum() * float("nan"),
        )
        assert run("name=x", "steps_per_epoch=10") == 1
        assert "no longer a finite number in epoch 1" in capfd.readouterr().err


class TestErrors:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ("real=nobody", "no folder .*nobody.* for the source nobody"),
            ("batch_size=32", "batch_size=32 is more than the 24 images of real"),
            ("dataset.image_size=12", "dataset.image_size must be a power of two"),
            ("generator.width=0", "generator.width must be at least 1"),
            ("generator=stylegan", "generator=stylegan is unknown: choose one of dcgan"),
            ("images=-1", "images must be at least 0"),
            ("source=../up", "source must name sources"),
        ],
    )
    def test_of_settings(
        self, more: str, said: str, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(more) == 1
        _, err = capfd.readouterr()
        assert re.search(said, err)
        assert len(err.strip().splitlines()) == 1

    @pytest.mark.parametrize("key", ["sample", "resume"])
    def test_of_a_folder_that_is_no_run(
        self, key: str, run: Run, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(f"{key}=nowhere", again=True) == 1
        assert f"{key}=nowhere is not a run folder" in capfd.readouterr().err

    def test_of_sampling_a_run_of_another_program(
        self, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        record = tmp_path / "outputs" / "x" / ".hydra"
        record.mkdir(parents=True)
        (record / "config.yaml").write_text("model: {channels: [4]}")
        (record / "overrides.yaml").write_text("[]")
        (record / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: x}}}")
        assert run("sample=outputs/x", again=True) == 1
        assert "sample=outputs/x is not a run of generate.py" in capfd.readouterr().err

    def test_of_sampling_a_run_that_is_not_whole(
        self,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(generator_task.GeneratorTask, "training_step", stop)
            assert run("name=x") == 130
        assert run("sample=outputs/x", again=True) == 1
        assert "generator.safetensors cannot be read" in capfd.readouterr().err

    def test_of_a_full_disk_while_sampling(
        self,
        run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        write = Path.write_bytes

        def full(self: Path, content: bytes) -> int:
            if "000003" in self.name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            return write(self, content)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            assert run("name=x") == 1
        assert "No space left" in capfd.readouterr().err
        written = tmp_path / "faces" / "dcgan"
        assert not (written / "source.json").exists()
        assert run("resume=outputs/x", again=True) == 0
        assert len(images_of(written)) == 7
        for path in written.glob("*.png"):
            Image.open(path).verify()


@pytest.mark.slow
@pytest.mark.parametrize("generator", TINY)
def test_ten_steps_on_the_demo_faces(
    generator: str, run_program: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces_module, "DEMO_FACES", 16)
    small = [
        *(
            "generator.channels=[8,8,8,8,4,4]" if "channels" in one else one
            for one in TINY[generator]
        ),
        "batch_size=4",
        "max_epochs=1",
        "steps_per_epoch=10",
        "images=3",
        "name=demo",
    ]
    assert run_program(GENERATE, f"generator={generator}", *small) == 0
    card = json.loads((tmp_path / f"outputs/demo/{generator}/source.json").read_text())
    assert card["toy"] is True
    with Image.open(tmp_path / f"outputs/demo/{generator}/000000.png") as image:
        assert image.size == (128, 128)


def test_a_generator_of_another_kind_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("name=x", "images=0") == 0
    path = tmp_path / "outputs" / "x" / "generator.safetensors"
    with pytest.raises(UserError, match="has a dcgan, which is not among wgan_gp"):
        load_model(path, {"wgan_gp": GENERATORS["wgan_gp"]}, {})


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path: Path) -> Path:
        """A folder with the interface of pytorch_GAN_zoo, whose images show their latents."""
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "hubconf.py").write_text(
            "import torch\n"
            "class Model:\n"
            "    def __init__(self):\n"
            "        self.netG = torch.nn.Linear(6, 3)\n"
            "    def buildNoiseData(self, count):\n"
            "        return torch.randn(count, 6), None\n"
            "    def test(self, latents):\n"
            "        colours = latents[:, :3, None, None] * 2\n"
            "        return colours.expand(-1, -1, 32, 32)\n"
            "def PGAN(model_name, pretrained, useGPU):\n"
            "    if model_name != 'celebAHQ-512':\n"
            "        raise ValueError(f'no {model_name}')\n"
            "    assert pretrained\n"
            "    return Model()\n"
        )
        return tmp_path / "hub"

    def test_is_sampled_without_training(
        self, hub: Path, run_program: Callable[..., int], tmp_path: Path
    ) -> None:
        write_images(tmp_path / "faces" / "real", 24)
        asked = [
            "generator=hub_pggan",
            f"generator.repository={hub}",
            f"dataset.root={tmp_path}/faces",
            "real=real",
            f"dataset.image_size={SIZE}",
            "images=5",
            "seed=3",
        ]
        assert run_program(GENERATE, *asked) == 0
        written = tmp_path / "faces" / "hub_pggan"
        card = json.loads((written / "source.json").read_text())
        assert (card["generator"], card["trained_on"]) == ("hub_pggan", None)
        assert card["network"]["settings"]["model_name"] == "celebAHQ-512"
        for name in images_of(written):
            with Image.open(written / name) as image:
                pixels = np.asarray(image)
            assert pixels.shape == (SIZE, SIZE, 3)
            assert (pixels == pixels[0, 0]).all()
        assert len(set(images_of(written).values())) == 5
        assert not (tmp_path / "outputs" / "checkpoints").exists()

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("generator.repository=nobody/nothing:main", "nobody/nothing:main gives no PGAN"),
            ("generator.model_name=none", r"gives no PGAN none \(no none\)"),
            ("dataset.image_size=64", "dataset.image_size=64 is larger than the 32 pixels"),
        ],
    )
    def test_what_it_has_not_is_said(
        self,
        setting: str,
        said: str,
        hub: Path,
        run_program: Callable[..., int],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        def offline(*_: object, **__: object) -> None:
            raise OSError("no internet")

        monkeypatch.setattr("torch.hub._get_cache_or_reload", offline)
        asked = ["generator=hub_pggan", f"generator.repository={hub}", f"dataset.root={tmp_path}"]
        assert run_program(GENERATE, *asked, setting) == 1
        assert re.search(said, capfd.readouterr().err)


@pytest.mark.slow
def test_two_devices_train_one_generator(run: Run, tmp_path: Path) -> None:
    assert run("name=one", "images=0", generator="pggan") == 0
    record = (tmp_path / "outputs/one/.hydra/overrides.yaml").read_text().splitlines()
    given = [line.removeprefix("- ").strip("'") for line in record]
    given = [one for one in given if not one.startswith(("name=", "images="))]
    process = started(GENERATE, *given, "images=7", "name=two", "trainer.devices=2")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert said.count("\nepoch 2 of 2:") == 1
    assert len(images_of(tmp_path / "faces" / "pggan")) == 7
    states = [state_of(tmp_path / "outputs" / name)["weights"] for name in ("one", "two")]
    assert states[0].keys() == states[1].keys()
    for tensor in states[1].values():
        assert tensor.isfinite().all()
