import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SIZE, write_detector, write_images
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from forensics import config
from forensics.checks import plain
from forensics.detectors import DETECTORS, Detector
from forensics.errors import UserError
from forensics.evaluation.settings import EvaluateSettings
from forensics.generators import GENERATORS
from forensics.launch import entry
from forensics.preprocess import PREPROCESSES
from forensics.training.settings import GenerateSettings, TrainSettings

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
# Options share the files in common.
GROUPS = sorted({folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"common"})
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


COMPOSITIONS = ("blur_noise", "blur_jpeg", "handling")
"""Options of preprocess that are made of others."""

LAYOUTS = {
    "140k": [f"{part}/{c}" for part in ("train", "valid", "test") for c in ("real", "fake")],
    "gangen": [
        f"{name}/{c}" for c in ("0_real", "1_fake")
        for name in ("AttGAN", "BEGAN", "CramerGAN", "InfoMaxGAN", "MMDGAN", "RelGAN", "S3GAN",
                     "SNGAN", "STGAN")
    ],
    "forensynths": [
        f"{place}/{c}" for c in ("0_real", "1_fake")
        for place in (
            *(f"{part}/progan/{kind}" for part in ("train", "val", "test")
              for kind in ("airplane", "car", "train", "tvmonitor")),
            *(f"test/{name}/{kind}" for name in ("cyclegan", "stylegan", "stylegan2")
              for kind in ("cat", "horse")),
            *(f"test/{name}" for name in ("biggan", "crn", "deepfake", "gaugan", "imle", "san",
                                          "seeingdark", "stargan", "whichfaceisreal")),
        )
    ],
}  # fmt: skip
"""Folders of data sets as they are unpacked, by the option of dataset."""

FOUND = ("benchmark", "folders", *LAYOUTS)
"""Options of dataset whose sources are those of a folder."""

TRAINING, GENERATING = (
    [(group, option) for group, option in OPTIONS if (group == "generator") is generating]
    for generating in (False, True)
)


def generating(*overrides: str) -> GenerateSettings:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("generate", ["source=none", "name=test", *overrides])
        return config.typed(settings, GenerateSettings)


def composed(*overrides: str) -> TrainSettings:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("train", ["dataset.root=/faces", "name=test", *overrides])
        return config.typed(settings, TrainSettings)


def evaluating(*overrides: str) -> EvaluateSettings:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("evaluate", ["name=test", "detector=outputs/x", *overrides])
        return config.typed(settings, EvaluateSettings)


@pytest.mark.parametrize("option", ["benchmark", "folders"])
def test_a_data_set_that_is_found_composes(option: str, tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        for number, class_ in enumerate(("real", "fake")):
            write_images(tmp_path / "140k" / part / class_, 1, number)
    given = [f"dataset={option}", f"dataset.root={tmp_path}/140k"]
    trained = composed(*given, "dataset.test_count=9").dataset
    tested = evaluating(*given).dataset
    for dataset in (trained, tested):
        assert dataset.real == ["real_140k"]
        assert dataset.generators == dataset.train_on == ["140k"]
        assert dataset.compared == {"140k": ["real_140k"]}
        assert dataset.folder("real_140k") == tmp_path / "140k"
    assert trained.below["real_140k"] == ["test/real", "train/real", "valid/real"]
    assert tested.below["real_140k"] == ["test/real"]


class TestLibrary:
    """Data sets of other papers, found as they are unpacked."""

    @pytest.fixture
    def unpacked(self, tmp_path: Path) -> Callable[[str], list[str]]:
        def make(option: str) -> list[str]:
            for number, folder in enumerate(LAYOUTS[option]):
                write_images(tmp_path / "set" / folder, 1, number)
            return [f"dataset={option}", f"dataset.root={tmp_path}/set"]

        return make

    @pytest.mark.parametrize("option", LAYOUTS)
    def test_each_generator_is_tested_against_its_own_real_images(
        self, option: str, unpacked: Callable[[str], list[str]]
    ) -> None:
        dataset = evaluating(*unpacked(option)).dataset
        count = {"140k": 1, "gangen": 9, "forensynths": 13}[option]
        assert len({*dataset.generators}) == len(dataset.generators) == count
        assert dataset.compared == {name: [f"real_{name}"] for name in dataset.generators}
        tested = {folder for of in dataset.below.values() for folder in of}
        has_parts = any(folder.startswith("test/") for folder in LAYOUTS[option])
        assert tested == {
            one for one in LAYOUTS[option] if one.startswith("test/") or not has_parts
        }

    def test_forensynths_trains_on_progan(self, unpacked: Callable[[str], list[str]]) -> None:
        dataset = composed(*unpacked("forensynths")).dataset
        assert (dataset.real, dataset.train_on) == (["real_progan"], ["progan"])
        assert len(dataset.unseen_real) == 12
        assert {path.split("/")[0] for path in dataset.below["progan"]} == {"train", "val", "test"}
        assert {path.split("/")[0] for path in dataset.below["stargan"]} == {"test"}

    def test_140k_trains_on_stylegan(self, unpacked: Callable[[str], list[str]]) -> None:
        dataset = composed(*unpacked("140k")).dataset
        assert dataset.generators == dataset.train_on == ["stylegan"]
        assert dataset.below["stylegan"] == ["test/fake", "train/fake", "valid/fake"]
        dataset.check_training()

    def test_a_generator_that_is_missing_is_named(
        self, unpacked: Callable[[str], list[str]], tmp_path: Path
    ) -> None:
        given = unpacked("gangen")
        shutil.rmtree(tmp_path / "set" / "RelGAN")
        with pytest.raises(UserError, match="RelGAN") as raised:
            evaluating(*given)
        assert raised.value.key == "dataset.generators"
        assert len(evaluating(*given, "dataset.generators=[SNGAN,BEGAN]").dataset.real) == 2

    def test_faces_are_folders_each_against_its_own(self) -> None:
        dataset = composed("dataset=faces").dataset
        assert dataset.folder("ffhq") == Path("/faces/ffhq")
        assert dataset.compared["stylegan2"] == ["ffhq"]
        assert {name for of in dataset.compared.values() for name in of} == {*dataset.real}
        dataset.check_training()


@pytest.mark.parametrize(("group", "option"), [one for one in TRAINING if one[1] not in FOUND])
def test_every_option_composes_and_builds(group: str, option: str, tmp_path: Path) -> None:
    ones_own = ["preprocess.steps=[{none: {}}]"] if option == "steps" else []
    if option == "ensemble":
        members = [write_detector(tmp_path / f"{n}.safetensors", n) for n in range(2)]
        ones_own = [f"model.members=[{members[0]},{members[1]}]", f"dataset.image_size={SIZE}"]
    settings = composed(f"{group}={option}", *ones_own)
    with torch.device("meta"):  # some backbones are large
        detector = settings.detector.build(settings.dataset.image_size, pretrained=False)
    assert isinstance(detector, Detector)
    assert callable(settings.operator)


@pytest.mark.parametrize(("group", "option"), GENERATING)
def test_every_generator_composes(group: str, option: str) -> None:
    assert isinstance(generating(f"{group}={option}").generator, GENERATORS[option])


def test_generators_and_detectors_share_their_prepared_images() -> None:
    of_generator, of_detector = generating().dataset, composed("dataset=paper").dataset
    for key in ("image_size", "resize_filter", "min_side", "max_rejected_share"):
        assert getattr(of_generator, key) == getattr(of_detector, key)


def test_settings_of_another_program_are_refused() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        theirs = compose("generate", ["name=test"])
        with pytest.raises(UserError, match="The run belongs to another program"):
            config.typed(theirs, TrainSettings)


def test_the_groups_offer_what_the_code_has() -> None:
    assert {o for g, o in OPTIONS if g == "generator"} == set(GENERATORS)
    assert {o for g, o in OPTIONS if g == "preprocess"} == {*PREPROCESSES, *COMPOSITIONS}
    assert {o for g, o in OPTIONS if g == "model"} == set(DETECTORS)


def test_the_defaults_are_the_papers() -> None:
    settings = composed("preprocess=noise", "dataset=paper")
    assert settings.dataset.real == ["celebahq"]
    assert settings.dataset.generators == ["pggan", "wgan_gp", "dcgan"]
    assert settings.dataset.train_on == ["pggan"]
    assert (settings.dataset.train_count, settings.dataset.test_count) == (10_000, 10_000)
    assert settings.dataset.image_size == 128
    values = plain(settings)
    assert values["model"]["channels"] == [64, 128, 256, 512]
    assert values["preprocess"] == {"max_std_grey_levels": 5.0, "per": "batch"}
    assert plain(composed("preprocess=blur"))["preprocess"]["kernel_sizes"] == [1, 3, 5, 7]


def test_blur_noise_has_the_strengths_of_its_parts() -> None:
    blur, noise, both = (
        plain(composed(f"preprocess={name}"))["preprocess"]
        for name in ("blur", "noise", "blur_noise")
    )
    assert both.pop("steps") == [
        {"blur": {"kernel_sizes": blur["kernel_sizes"]}},
        {"noise": {"max_std_grey_levels": noise["max_std_grey_levels"]}},
    ]
    assert both == {"name": "blur_noise", "probability": 1, "per": blur["per"]}


def test_handling_has_the_qualities_of_jpeg() -> None:
    jpeg, handling = (
        plain(composed(f"preprocess={n}"))["preprocess"] for n in ("jpeg", "handling")
    )
    del jpeg["per"]
    assert handling["steps"][-1] == {"jpeg": jpeg}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_composition_goes_by_its_name(name: str) -> None:
    assert config.flat(composed(f"preprocess={name}"))["preprocess"] == name


STEPS = "preprocess.steps[0]"


@pytest.mark.parametrize(
    ("step", "key", "said"),
    [
        ("blur", STEPS, "mapping"),
        ("{}", STEPS, "mapping"),
        ("{blur: {kernel_sizes: [3]}, none: {}}", STEPS, "one operator"),
        ("{blurr: {}}", f"{STEPS}.blurr", "did you mean blur"),
        ("{steps: {}}", f"{STEPS}.steps", "choose of"),
        ("{blur: [3]}", f"{STEPS}.blur", "mapping of settings"),
        ("{blur: {kernel_sizes: [2]}}", f"{STEPS}.blur.kernel_sizes", "odd"),
        ("{blur: {kernel_sizes: [a]}}", f"{STEPS}.blur.kernel_sizes[0]", "Integer"),
        ("{blur: {kernel_size: [3]}}", f"{STEPS}.blur.kernel_size", "no setting"),
        ("{blur: {}}", f"{STEPS}.blur.kernel_sizes", "[Mm]issing"),
        ("{blur: {kernel_sizes: [3], per: image}}", f"{STEPS}.blur.per", "preprocess.per"),
        ("{none: {}, probability: 2}", f"{STEPS}.probability", r"\[0, 1\]"),
        ("{none: {}, probability: often}", f"{STEPS}.probability", r"\[0, 1\]"),
        ("{one_of: []}", f"{STEPS}.one_of", "list of steps"),
        ("{one_of: {none: {}}}", f"{STEPS}.one_of", "list of steps"),
        (
            "{one_of: [{none: {}}, {noise: {max_std_grey_levels: -1}}]}",
            f"{STEPS}.one_of[1].noise.max_std_grey_levels",
            "grey levels",
        ),
    ],
)
def test_a_wrong_step_is_refused_by_its_key(step: str, key: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        composed("preprocess=steps", f"preprocess.steps=[{step}]")
    assert raised.value.key == key
    assert key in str(raised.value)


@pytest.mark.parametrize("change", ["probability=1.5", "probability=nan", "steps=[]"])
def test_a_wrong_composition_is_refused_by_its_key(change: str) -> None:
    key = f"preprocess.{change.partition('=')[0]}"
    with pytest.raises(UserError, match=re.escape(key)) as raised:
        composed("preprocess=handling", f"preprocess.{change}")
    assert raised.value.key == key


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("preproces=noise", "preproces: did you mean preprocess"),
        ("preprocess=nois", "blur, blur_jpeg, .*, handling, jpeg, .*noise, none"),
        ("preprocess.kernel_sizes=[3]", "preprocess.kernel_sizes"),
        ("seed=many", "seed: "),
        ("preprocess.per=pixel", r"preprocess.per: .*\[batch, image\]"),
        ("dataset.resize_filter=magic", "dataset.resize_filter: .*lanczos"),
        ("dataset.match=magic", r"dataset.match: .*\[none, jpeg, resample, codec\]"),
        ("trainer.precision=int8", "trainer.precision: .*bf16"),
        ("model.front_end=edges", r"model.front_end: .*\[rgb, npr, lpd, laplacian, kv, .*"),
        ("no sense", "Cannot read 'no sense'"),
        ("model.betas=0.5", r"model.betas: .*model.betas=\[A,B\]\.$"),
        ("perturb=jpeg", r"perturb: .*perturb=\[A\]"),
        ("seed=a(b", r"'seed=\"a\(b\"'"),
        ("learning_rate=1e-3", "learning_rate: did you mean model.learning_rate"),
        ("betas=[0.5,0.9]", "betas: did you mean model.betas"),
        ("seed=1,2", "seed=1,2 has several values: add -m"),
        ("dataset.root=/a,b", "'dataset.root=\"/a,b\"'"),
        ("generator=dcgan", "There is no group generator: "),
    ],
)
def test_what_does_not_compose_is_told_in_one_sentence(override: str, said: str) -> None:
    first = [] if override.startswith("preprocess=") else ["preprocess=noise"]
    with pytest.raises(Exception) as raised:  # noqa: PT011 - Hydra raises many kinds
        composed(*first, override)
    sentence = entry.sentence(raised.value)
    assert re.search(said, sentence)
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "max_epochs=0",
        "batch_size=1",
        "model.learning_rate=0",
        "model.learning_rate=inf",
        "model.weight_decay=-1",
        "model.warmup_epochs=-1",
        "monitor=test/auroc",
        "patience=0",
        "name=",
        "name=.",
        "name=../elsewhere",
        "name=/elsewhere",
        "model.betas=[0.5]",
        "model.betas=[0.5,1.0]",
        "trainer.devices=0",
        "trainer.nodes=0",
        "trainer.accelerator=abacus",
        "model.channels=[]",
        "model.leaky_relu_slope=1.5",
        "dataset.validation_share=1",
        "dataset.train_on=[nobody]",
        "dataset.real=[pggan]",
    ],
)
def test_what_is_out_of_range_is_refused_by_its_key(override: str) -> None:
    with pytest.raises(UserError, match=re.escape(override.split("=")[0])):
        composed("dataset=paper", override)


@pytest.mark.parametrize(
    ("override", "key", "guess"),
    [
        ("+foo=1", "foo", "leave it out"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run", "leave it out"),
        ("+dataset.train_cont=5", "dataset.train_cont", "dataset.train_count"),
        ("++model.channel=[4]", "model.channel", "model.channels"),
        ("+preprocess.pre=image", "preprocess.pre", "preprocess.per"),
    ],
)
def test_unknown_key_is_refused_also_with_plus(override: str, key: str, guess: str) -> None:
    with pytest.raises(UserError) as raised:
        composed("preprocess=noise", override)
    assert raised.value.key == key
    assert guess in str(raised.value)


@pytest.mark.parametrize("key", ["perturb", "dataset.real", "trainer.devices"])
def test_a_removed_value_is_named(key: str) -> None:
    with pytest.raises((UserError, HydraException)) as raised:
        composed(f"~{key}")
    assert entry.sentence(raised.value).endswith(f"leave out ~{key}.")


def test_a_missing_value_is_named() -> None:
    with pytest.raises(UserError, match=r"dataset\.root"):
        composed("dataset=paper", "dataset.root=???")


def test_a_batch_must_be_shared_evenly_by_the_devices() -> None:
    with pytest.raises(UserError, match=r"batch_size must be a multiple of 6, trainer\.devices"):
        composed("trainer.devices=3", "trainer.nodes=2")


def test_a_source_may_lie_anywhere() -> None:
    settings = composed("dataset=paper", "+dataset.folders.pggan=/else/where")
    assert settings.dataset.folders == {"pggan": "/else/where"}


def test_help_names_every_group_and_option() -> None:
    helps = {
        name: (CONF / f"{name}.yaml").read_text().partition("template:")[2]
        for name in ("train", "generate")
    }
    for group, option in OPTIONS:
        text = helps["generate" if group == "generator" else "train"]
        assert re.search(rf"\b{group}\b", text)
        assert re.search(rf"\b{option}\b", text)


# What may import what: a module imports only from lines above its own.
RANKS = [
    {"errors", "labels"},
    {"progress"},
    {"files"},
    {"compute", "checks"},
    {"runs", "model_files", "preprocess"},
    {"images"},
    {"detectors", "generators"},
    {"data"},
    {"training", "scoring"},
    {"evaluation", "launch"},
    {"reports"},
    {"config"},
    {"commands", "programs"},
    {"cli"},
]
"""Packages and modules by who may import whom: only those of a lower rank."""


def test_packages_import_lower_ranks_only() -> None:
    rank = {name: number for number, names in enumerate(RANKS) for name in names}
    package = ROOT / "forensics"
    for path in package.rglob("*.py"):
        own = path.relative_to(package).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            root, _, inner = node.module.partition(".")
            if root != "forensics":
                continue
            for other in [inner.split(".")[0]] if inner else [alias.name for alias in node.names]:
                assert other == own or rank[other] < rank[own], f"{path} imports {other}"
