"""Ask a photo a question; get an answer and the mask of what it is about.

    model = lisa.load()
    result = model.segment("coffee.jpg", "something to wake up with")
    result.text, result.masks
    result.save("coffee.geojson")

The public names, sorted. Each is imported when it is first used, so that `import lisa` costs
nothing and the command line answers `--help` without loading the tensor library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisa import errors
    from lisa.errors import (
        DataError,
        ImageError,
        LisaError,
        ModelError,
        OutputError,
        QuestionError,
    )
    from lisa.example import Example
    from lisa.masks import Mask
    from lisa.models import load
    from lisa.predict import Chat, Segmenter
    from lisa.result import Result

__all__ = [
    "Chat",
    "DataError",
    "Example",
    "ImageError",
    "LisaError",
    "Mask",
    "ModelError",
    "OutputError",
    "QuestionError",
    "Result",
    "Segmenter",
    "__version__",
    "errors",
    "load",
]

__version__ = "0.1.0"

_HOMES = {
    "Chat": "lisa.predict",
    "DataError": "lisa.errors",
    "Example": "lisa.example",
    "ImageError": "lisa.errors",
    "LisaError": "lisa.errors",
    "Mask": "lisa.masks",
    "ModelError": "lisa.errors",
    "OutputError": "lisa.errors",
    "QuestionError": "lisa.errors",
    "Result": "lisa.result",
    "Segmenter": "lisa.predict",
    "load": "lisa.models",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("lisa.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'lisa' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
