"""The commands of README.md and docs/, as a new user copies them, on small data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import program_runner, write_images

from forensics.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SMALL = {
    "train.py": [
        "dataset.image_size=16", "dataset.train_count=8", "dataset.test_count=8",
        "dataset.validation_share=0.25",
        "model.channels=[4,8]", "batch_size=4", "trainer=cpu", "audit=off", "cache_dir=cache",
    ],
    "evaluate.py": ["dataset.test_count=8", "cache_dir=cache"],
    "generate.py": [
        "dataset.image_size=32", "steps_per_epoch=1", "max_epochs=1", "batch_size=8",
        "trainer=cpu", "cache_dir=cache",
    ],
}  # fmt: skip
"""Settings that make a command of README take seconds, where it does not set them itself."""

SMALLER = {
    "generator=dcgan": ["generator.width=4"],
    "generator=wgan_gp": ["generator.width=4"],
    "generator=pggan": ["generator.channels=[8,8,8,8]", "generator.stable_images=8"],
    "generator=resynthesis": ["generator.count=2", "generator.steps=[1,2]"],
    "-m": ["preprocess=none,blur", "seed=0"],
}

NOT_RUN = ("hf://", "make ", "pip ", "tensorboard", " -cd ", "model=timm", "trainer.nodes=")
"""What needs the internet or downloaded weights, is of another program, is a study, which
test_sweeps composes, or runs on several machines, see test_train."""


def commands() -> list[str]:
    """Every command of the pages' shell blocks, a line each, without comments."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = dict.fromkeys(line.split(" #")[0].strip() for line in lines)
    return [line for line in found if line and not any(part in line for part in NOT_RUN)]


COMMANDS = [line for line in commands() if re.search(r"(python \w+\.py|forensics) ", line)]


def test_every_program_is_among_the_commands() -> None:
    programs = {line.split()[1] for line in COMMANDS if line.startswith("python ")}
    assert programs == {"train.py", "evaluate.py", "generate.py"}
    assert {"predict", "report", "audit", "prepare", "export"} <= set(" ".join(COMMANDS).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what README speaks of: faces, photographs, a run, an archive."""
    home = tmp_path_factory.mktemp("user")
    names = ("celebahq", "pggan", "wgan_gp", "dcgan", "utkface", "lfw", "celeba", "mine",
             "resynthesis", "held_out")  # fmt: skip
    for seed, name in enumerate(names):
        for root in ("faces", "other"):
            write_images(home / root / name, 16, seed, 128)
    for seed, part in enumerate(("train", "valid", "test")):
        for class_ in ("real", "fake"):
            write_images(
                home / "data" / "140k" / part / class_, 8, 200 + 2 * seed + (class_ == "real"), 128
            )
    for seed, class_ in enumerate(("0_real", "1_fake")):
        write_images(home / "data" / "ForenSynths" / "test" / "progan" / class_, 8, seed, 128)
    write_images(home / "photos", 3, 99, 128)
    write_images(home, 1, 98)[0].rename(home / "more.jpg")
    write_images(home / "archive", 3, 97, 128)
    shutil.make_archive(str(home / "celebahq"), "zip", home / "archive")
    shutil.make_archive(str(home / "img_align_celeba"), "zip", home / "archive")
    given = [*SMALL["train.py"], "dataset=paper", f"dataset.root={home}/faces", "max_epochs=1"]
    with pytest.MonkeyPatch.context() as patched:
        train = program_runner(home, patched)
        assert train(ROOT / "train.py", *given, "name=NAME") == 0
        assert train(ROOT / "train.py", *given, "name=B", "seed=1") == 0
    shutil.copytree(home / "outputs" / "NAME", home / "outputs" / "A")
    return home


def adapted(line: str) -> list[str]:
    """A command with this machine's places, and small."""
    places = {"/faces": "faces", "/other": "other", "/elsewhere": "other", "/archive": "archive",
              "=/data/": "=data/",
              "~/Downloads/": "", "DIR/celeba/": "", "images=10000": "images=8",
              "images=5000": "images=8",
              "outputs/table1_paper more/runs": "outputs/A",
              " ...": " dataset=paper dataset.root=faces 'dataset.real=[lfw]'"}  # fmt: skip
    for theirs, ours in places.items():
        line = line.replace(theirs, ours)
    words = shlex.split(line)
    if words[0] != "python":
        return words
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    small = [one for one in SMALL[words[1]] if one.partition("=")[0] not in keys]
    if "resume" in keys or "sample" in keys:
        small = []  # they are in the run
    for given, more in SMALLER.items():
        if given in words:
            small += more
            small = [one for one in small if one.partition("=")[0] not in keys] + more
    if "model" in keys:  # the small network's channels are of the default model
        small = [one for one in small if not one.startswith("model.")]
    if words[1] == "train.py" and not {"max_epochs", "resume"} & keys:
        small.append("max_epochs=1")
    return [*words, *dict.fromkeys(small)]


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_runs(
    line: str, user: Path, tmp_path: Path, run_program: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(user, tmp_path, dirs_exist_ok=True)  # run_program works there
    if "prepare celeb" in line:
        shutil.rmtree(tmp_path / "faces")
    if "resume=" in line and "max_epochs" not in line:
        (tmp_path / "outputs" / "NAME" / "result.json").unlink()
    for made in re.findall(r"(?:generator|source)=(\w+)", line):
        shutil.rmtree(tmp_path / "faces" / made, ignore_errors=True)
    if "sample=" in line:
        shutil.rmtree(tmp_path / "faces" / "dcgan")
        given = (
            "python generate.py generator=dcgan dataset.root=/faces real=celeba name=NAME images=4"
        )
        shutil.rmtree(tmp_path / "outputs" / "NAME")
        assert run_program(ROOT / "generate.py", *adapted(given)[2:]) == 0
    if line.startswith("find"):
        line = line.split("|")[1].strip().replace(" - ", " archive ")
    words = adapted(line)
    if words[0] == "forensics":
        assert main(words[1:]) == 0, capfd.readouterr().err
    else:
        assert run_program(ROOT / words[1], *words[2:]) == 0, capfd.readouterr().err
    written = list(tmp_path.rglob("result.json"))
    assert all(json.loads(path.read_text()) for path in written)
