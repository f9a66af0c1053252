"""Data sets of the Hugging Face hub, as the parquet files it keeps them in."""

import errno
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from forensics.errors import UserError

SCHEME = "hf://"

_CONVERTED = "refs/convert/parquet"
"""The branch with the parquet files that the hub itself makes of other data sets."""


def download(name: str, to: Path) -> Path:
    """Download the parquet files of a data set; what was interrupted goes on.

    Args:
        name: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME/FOLDER`` for the files below a folder.
        to: the folder to download into, made if missing.

    Returns:
        The folder below it with the files of the data set's present commit and no others.

    Raises:
        UserError: if huggingface_hub is not installed, the data set cannot be had, or it has no
            parquet file.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{name} needs huggingface_hub: pip install -c constraints.txt '.[hub]'.")
    parts = name.removeprefix(SCHEME).split("/")
    if len(parts) < 2 or not all(parts):
        raise UserError(f"{name} is no data set's name: give hf://OWNER/NAME, as its page has it.")
    dataset, folder = "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        refs = hub.list_repo_refs(dataset, repo_type="dataset").converts
        for revision in (None, *(one.ref for one in refs if one.ref == _CONVERTED)):
            info = hub.dataset_info(dataset, revision=revision)
            names = [one.rfilename for one in info.siblings]
            chosen = [n for n in names if n.startswith(folder) and n.endswith(".parquet")]
            if chosen:
                break
        else:
            raise UserError(
                f"{name} has no parquet file: download it by hand and give the folder or archive."
            )
        hub.snapshot_download(
            dataset,
            repo_type="dataset",
            revision=info.sha,
            allow_patterns=chosen,
            local_dir=to / info.sha,
        )
    except UserError:
        raise
    except Exception as error:  # of the hub, of several HTTP libraries, of its cache
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{name} cannot be downloaded ({type(error).__name__}: {reason}): check name and "
            "connection; for a gated one accept its terms on its page and run `hf auth login`."
        ) from error
    return to / str(info.sha)
