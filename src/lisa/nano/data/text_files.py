"""Where the texts are that lisa-nano learns from: in the repository, not in an installed package.

This file knows a folder; it refuses to know what its files say.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from lisa.errors import DataError

VARIABLE = "LISA_NANO_TEXTS"  # of the environment: another folder of texts


def text_file(*parts: str) -> Path:
    """A file or folder of the texts, such as ``text_file("knowledge")``.

    Raises:
        DataError: the texts are not here; only the source tree has them.
    """
    folder = Path(os.environ.get(VARIABLE) or str(resources.files("lisa.nano.data") / "texts"))
    if not folder.is_dir():
        raise DataError(
            f"the texts that lisa-nano learns from are not in '{folder}'; expected them: install "
            f"from a source tree with 'pip install -e .', or name their folder in {VARIABLE}"
        )
    return folder.joinpath(*parts)
