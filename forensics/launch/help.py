"""Help of the programs, without slow imports."""

import sys
from pathlib import Path

import yaml


def program() -> str:
    """The program of this process, as a user types it."""
    script = Path(sys.argv[0])
    if script.parent.name == "programs":  # of the package, see `forensics.programs.run`
        return f"forensics {script.stem}"
    return f"python {script.name}"


def answer(config: Path) -> None:
    """Print the help of a program and exit, if its command line asks for it.

    Hydra would do so only after torch and Lightning are imported, which takes seconds.

    Args:
        config: the program's configuration file, which has the text.
    """
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    text = yaml.safe_load(config.read_text())["hydra"]["help"]["template"]
    sys.stdout.write(text.replace(f"python {config.stem}.py", program()))
    sys.exit()
