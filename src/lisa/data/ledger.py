"""Files that only grow: a record a line, each on the disk before the next one is thought of.

This file knows lines; it refuses to know what they say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lisa.errors import DataError, OutputError

Kind = TypeVar("Kind")


def records_of(path: Path, kind: type[Kind]) -> list[Kind]:
    """The records of a file as values; a last line that was not written to its end is none.

    Raises:
        DataError: a line is not JSON, or not the fields of ``kind``.
    """
    found = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            found.append(kind(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"line {number} of '{path}' is no {kind.__name__.lower()} ({error})"
            ) from error
    return found


def whole_lines(path: Path) -> list[bytes]:
    """The lines that end; none where there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record, on the disk when this returns; half a line of an interruption is cut off.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    try:
        with path.open("a+b") as stream:
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}; expected space") from error
