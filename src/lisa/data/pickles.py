"""Old annotation files are pickles. This reads them as data, and lets none of them run anything.

A pickle is a program; loading one from the web the usual way runs whatever it says. Lists,
dictionaries, text and numbers need no program: what asks for anything else is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from lisa.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers and scalars, which need no import."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"it asks for {module}.{name}; expected plain lists, texts and numbers")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise DataError("it refers to other files; expected plain lists, texts and numbers")


def read_pickle(path: Path) -> Any:
    """What a pickle of plain values holds; text of Python 2 is read as UTF-8.

    Raises:
        DataError: there is no such file, it is not a pickle, or it asks for anything that is not
            a list, dictionary, text or number. The message names the file.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="utf-8", errors="replace").load()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; expected a pickle") from error
    except DataError as error:
        raise DataError(f"cannot read '{path}': {error}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"cannot read '{path}': it is not a whole pickle ({reason})") from error
