"""Download of Hugging Face data sets as parquet files."""

import errno
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from forensics.errors import UserError

SCHEME = "hf://"

_CONVERTED = "refs/convert/parquet"
"""The branch with the hub's own parquet conversion of a data set."""


def download(name: str, to: Path) -> Path:
    """Download the parquet files of a data set; resumes an interrupted download.

    Args:
        name: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME/FOLDER`` for the files below a folder.
        to: the folder to download into, created if missing.

    Returns:
        The folder below ``to`` with exactly the files of the data set's current commit.

    Raises:
        UserError: if huggingface_hub is not installed, the data set cannot be downloaded, or it
            has no parquet file.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{name} needs huggingface_hub: pip install -c constraints.txt '.[hub]'.")
    parts = name.removeprefix(SCHEME).split("/")
    if len(parts) < 2 or not all(parts):
        raise UserError(f"{name} is not a data set's name: give hf://OWNER/NAME, as on its page.")
    dataset, folder = "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        refs = hub.list_repo_refs(dataset, repo_type="dataset").converts
        for revision in (None, *(branch.ref for branch in refs if branch.ref == _CONVERTED)):
            info = hub.dataset_info(dataset, revision=revision)
            names = [file.rfilename for file in info.siblings]
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
            "connection; for a gated data set accept its terms on its page and run `hf auth login`."
        ) from error
    return to / str(info.sha)
