"""The public names: short, sorted, and true."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lisa
from lisa import errors

SOURCE = Path(lisa.__file__)


def _declared_for_type_checkers() -> set[str]:
    """The names that `__init__.py` imports for type checkers."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_exported_names_are_sorted_and_unique() -> None:
    assert lisa.__all__ == sorted(set(lisa.__all__))


@pytest.mark.parametrize("name", lisa.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(lisa, name) is not None
    assert name in dir(lisa)


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    assert _declared_for_type_checkers() == set(lisa.__all__) - {"__version__"}


def test_every_error_is_exported_and_is_the_same_class() -> None:
    family = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert family <= set(lisa.__all__)
    for name in family:
        assert getattr(lisa, name) is getattr(errors, name)
        assert issubclass(getattr(lisa, name), lisa.LisaError)


def test_names_come_from_the_file_that_defines_them() -> None:
    homes = {"Example": "example", "Mask": "masks", "Result": "result", "Segmenter": "predict"}
    for name, module in homes.items():
        assert getattr(lisa, name) is getattr(import_module(f"lisa.{module}"), name)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'segmnt'"):
        lisa.segmnt  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert SOURCE.with_name("py.typed").is_file()


@pytest.mark.parametrize("module", ["lisa", "lisa.cli"])
def test_importing_costs_no_tensor_library(module: str) -> None:
    heavy = {"torch", "transformers", "cv2", "numpy"}
    script = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
