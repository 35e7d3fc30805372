"""Records in files: JSON and its fields, and what is done about the ones that are broken.

A broken record is a ``DataError`` of one line that names the file, the record and what was
expected. ``BadRecords`` collects them instead, where asked to. This file knows no format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lisa.errors import DataError, LisaError

Kind = TypeVar("Kind")


class BadRecords:
    """What is wrong with single records: an error at once, or one of ``messages``.

    Args:
        skip: collect what is wrong, so that the record is left out and the others are read.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.messages: list[str] = []

    @contextmanager
    def of(self, where: str = "") -> Iterator[None]:
        """Reads one record; ``where`` names it, if what is wrong with it does not say."""
        try:
            yield
        except LisaError as error:
            message = f"{where}: {error}" if where else str(error)
            if not self.skip:
                raise DataError(message) from error
            self.messages.append(message)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or a ``DataError`` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}; expected a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not valid JSON: {error}") from error


def read_list(path: Path) -> list[Any]:
    """A JSON file that holds a list, or a ``DataError`` that names it."""
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"'{path}' holds a {type(content).__name__}; expected a list")
    return content


def field(record: Any, key: str, kind: type[Kind], where: str = "") -> Kind:
    """``record[key]``, or a ``DataError`` that says where it is missing or of another kind."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        place = f"{where}: " if where else ""
        raise DataError(f"{place}'{key}' is {found}; expected a {kind.__name__}")
    return value
