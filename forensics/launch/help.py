"""Help of the entry points, without anything that takes long to import."""

import sys
from pathlib import Path

import yaml


def answer(config: Path) -> None:
    """Print the help of an entry point and end the process, if its command line asks for it.

    Hydra would do so after seconds, in which torch and Lightning are imported.

    Args:
        config: the entry point's, which has the text.
    """
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    text = yaml.safe_load(config.read_text())["hydra"]["help"]["template"]
    # A reader may have gone, as in `train.py --help | head`.
    sys.stdout.write(text)
    sys.exit()
