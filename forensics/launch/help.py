"""Help of the entry points, without slow imports."""

import sys
from pathlib import Path

import yaml


def answer(config: Path) -> None:
    """Print the help of an entry point and exit, if its command line asks for it.

    Hydra would do so only after torch and Lightning are imported, which takes seconds.

    Args:
        config: the entry point's configuration file, which has the text.
    """
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    text = yaml.safe_load(config.read_text())["hydra"]["help"]["template"]
    sys.stdout.write(text)
    sys.exit()
