"""The wings that must work where neither torch nor transformers is installed."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

WITHOUT = ("errors", "files", "image", "masks", "example", "result", "predict", "models")
WINGS = ("draw", "export", "data", "annotation", "evaluation")
PROGRAM = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def modules() -> list[str]:
    root = Path(str(resources.files("lisa")))
    files = [file for wing in WINGS for file in sorted((root / wing).rglob("*.py"))]
    named = [".".join(file.relative_to(root).with_suffix("").parts) for file in files]
    return [f"lisa.{name.removesuffix('.__init__')}" for name in (*WITHOUT, *named)]


def test_what_reads_data_and_measures_needs_no_tensor_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules()], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
