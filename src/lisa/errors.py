"""The errors a user can meet.

    LisaError               every error this package raises on purpose
    ├── ImageError          a picture that cannot be read
    ├── QuestionError       a question that cannot be asked
    ├── DataError           an annotation, mask or data set that breaks its format
    ├── ModelError          a model that cannot be found, or is not complete
    └── OutputError         a file that cannot be written

Each message is one line: it names what the user gave and what was expected. This file knows no
other; it does not print, and it does not decide exit codes (the command line does).
"""


class LisaError(Exception):
    """Base of all errors raised on purpose; catch this one to catch them all."""


class ImageError(LisaError):
    """The picture is missing, broken, too large, or not a picture."""


class QuestionError(LisaError):
    """The question is empty, too long, or not text."""


class DataError(LisaError):
    """A mask, an annotation file or a data set does not have the form it must have."""


class ModelError(LisaError):
    """The model's name is unknown, or its directory is incomplete or damaged."""


class OutputError(LisaError):
    """The output cannot be written where it was asked for."""
