"""The README, executed: what it says to type is typed here, and what it shows is what comes out.

How each fenced block is handled. A block, or a line of one, that nothing below handles fails.

- `python`: all of them, in order, as one program in a fresh process, since a reader follows them
  from top to bottom.
- `bash`: line by line, in a folder that stands for the checkout: it has `examples/`, `benchmarks/`,
  and a small `ReasonSeg/val` made of the examples and the masks in `tests/nano/release`. A line may
  be a chain of steps with `&&`. A step is one of:
    - `lisa …`, `.venv/bin/lisa …`: run, with the lisa that is installed here. Only `lisa train` and
      `lisa report` are not run but read by the command line's own parser: they take hours, and
      data that are not part of the checkout.
    - `python FILE …`: run, with this interpreter.
    - `python3 -m venv .venv`, `.venv/bin/pip install …`: not run again inside these tests. Their
      form is checked: the same folder throughout, the project itself, extras that exist.
    - `.venv/bin/python -m pytest`: not run inside itself. It is checked that `.ci/run` takes its
      line from the README; there it is run word for word in a fresh environment.
- `text` right after `bash`: what the block above it prints, to the letter.
- `tree`: the wings, compared with the modules and folders that are there.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.commands import parse
from helpers.made_up_things import make_reasonseg
from helpers.paths import CHECKOUT, RELEASE
from lisa.image import load_image

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
LANGUAGES = {"bash", "python", "text", "tree"}
SECONDS = 300  # for one step on a slow machine


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the README where it begins."""

    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}"


def find_blocks(text: str) -> Iterator[Block]:
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        yield Block(match[1].strip(), match[2], text[: match.start()].count("\n") + 1)


BLOCKS = list(find_blocks(README))
BASH = [block for block in BLOCKS if block.language == "bash"]
STEPS = [
    (str(block), step)
    for block in BASH
    for line in block.text.splitlines()
    for step in line.split(" && ")
]
SETUPS = [line for block in BASH for line in block.text.splitlines() if "-m venv" in line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands read, where they can write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ["examples", "benchmarks"]:
        shutil.copytree(CHECKOUT / name, folder / name)
    make_reasonseg(folder / "ReasonSeg" / "val")
    return folder


def run(arguments: list[str], folder: Path) -> str:
    """Run this interpreter; what it printed. It must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stderr}"
    return done.stdout


@cache
def run_step(step: str, folder: Path) -> str:
    """Do one step of a shell line in the way the docstring above says; what it printed."""
    match shlex.split(step):
        case ["lisa" | ".venv/bin/lisa", "train" | "report" as command, *arguments]:
            parse([command, *arguments])
        case ["lisa" | ".venv/bin/lisa", *arguments]:
            return run(["-m", "lisa", *arguments], folder)
        case ["python", file, *arguments] if file.endswith(".py"):
            return run([file, *arguments], folder)
        case ["python3", "-m", "venv", ".venv"]:
            pass
        case [".venv/bin/pip", "install", project]:
            check_project(project)
        case [".venv/bin/python", "-m", "pytest"]:
            assert sum("-m pytest" in line for line in SETUPS) == 1
        case _:
            pytest.fail(f"no handler for the step {step!r}")
    return ""


def check_project(project: str) -> None:
    """The project is this folder, `.` or `.[extra,…]`, with extras that exist."""
    match = re.fullmatch(r"\.(?:\[([\w,-]+)\])?", project)
    assert match, f"expected '.' or '.[extra]', got {project!r}"
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(match[1].split(",")) if match[1] else set()
    assert extras <= set(settings["project"]["optional-dependencies"])


# The blocks ---------------------------------------------------------------------------------------


def test_every_block_has_a_handler() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)  # no fence was overlooked
    assert {block.language for block in BLOCKS} <= LANGUAGES
    for before, block in pairwise(BLOCKS):
        assert block.language != "text" or before.language == "bash", block


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "step"), STEPS, ids=[f"{where}: {step}" for where, step in STEPS]
)
def test_a_shell_step_works(block: str, step: str, checkout: Path) -> None:
    run_step(step, checkout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "shown"),
    [(first, second) for first, second in pairwise(BLOCKS) if second.language == "text"],
    ids=str,
)
def test_the_output_shown_is_the_output(block: Block, shown: Block, checkout: Path) -> None:
    steps = [step for line in block.text.splitlines() for step in line.split(" && ")]
    assert "".join(run_step(step, checkout) for step in steps) == shown.text


@pytest.mark.slow
def test_the_python_blocks_work_in_order(checkout: Path) -> None:
    program = "\n".join(block.text for block in BLOCKS if block.language == "python")
    run(["-c", program], checkout)
    written = json.loads((checkout / "coffee.geojson").read_text(encoding="utf-8"))
    assert written["type"] == "FeatureCollection"


# The set-up ---------------------------------------------------------------------------------------


def test_two_commands_do_all_the_set_up() -> None:
    jobs = [line.split(" && ") for line in SETUPS]
    assert len(jobs) == 2
    for make, install, _job in jobs:
        assert make == "python3 -m venv .venv"
        assert install.startswith(".venv/bin/pip install ")
    assert jobs[0][2].startswith(".venv/bin/lisa segment examples/coffee.jpg ")
    assert jobs[1][2] == ".venv/bin/python -m pytest"


def test_continuous_integration_runs_the_test_command_of_this_page() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    match = re.search(
        r"^test_command=\$\(grep -E '([^']+)' \"\$checkout/README.md\"\)", script, re.M
    )
    assert match, "expected .ci/run to take its test command from README.md"
    found = [line for line in README.splitlines() if re.search(match[1], line)]
    assert found == [SETUPS[1]]
    assert '\nbash -euo pipefail -c "$test_command"\n' in script


# The rest of the page -----------------------------------------------------------------------------


def test_the_tree_shows_every_wing_once() -> None:
    (tree,) = (block for block in BLOCKS if block.language == "tree")
    shown = list(read_tree(tree.text))
    assert [path for path in shown if not (CHECKOUT / path).exists()] == []
    assert [path for path, times in Counter(shown).items() if times > 1] == []
    for wing in ("src/lisa/", "src/lisa/nano/"):
        parts = {path for path in shown if path.startswith(wing) and path != wing}
        assert {path for path in parts if "/" not in path[len(wing) : -1]} == wing_parts(wing)


def wing_parts(wing: str) -> set[str]:
    """The modules and folders that lie in a wing; its own line covers an `__init__.py` within."""
    folder = CHECKOUT / wing
    modules = {f"{wing}{path.name}" for path in folder.glob("*.py")}
    packages = {f"{wing}{path.name}/" for path in folder.iterdir() if holds_files(path)}
    return (modules | packages) - {"src/lisa/nano/__init__.py"}


def holds_files(path: Path) -> bool:
    """Whether a path is a folder with more in it than what Python caches."""
    files = (file for file in path.rglob("*.*") if "__pycache__" not in file.parts)
    return path.name != "__pycache__" and any(file.is_file() for file in files)


def read_tree(text: str) -> Iterator[str]:
    """The paths of an indented list, a wing or a few files a line, two spaces before what it says.

    A name that ends in / holds what stands under it.
    """
    folders: list[str] = []
    for line in text.splitlines():
        names = line.strip().split("  ")[0].split()
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], names[0]]
        yield from ("".join([*folders[:depth], name]) for name in names)


def test_links_to_files_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    files = [target for target in targets if "://" not in target]
    assert files
    assert [file for file in files if not (CHECKOUT / file).exists()] == []


def test_nothing_is_left_to_be_filled_in() -> None:
    assert "TODO" not in README


def test_the_page_stays_short() -> None:
    assert len(README.splitlines()) <= 170


def test_the_page_agrees_with_the_package_on_versions() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["requires-python"] == ">=3.11,<3.14"
    assert "Python 3.11 to 3.13." in README


def test_every_example_photograph_has_its_source_and_licence() -> None:
    sources = (CHECKOUT / "examples" / "SOURCES.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+\.jpg)` \|.*\| ([^|]+) \|$", sources, re.MULTILINE))
    assert set(rows) == {path.name for path in (CHECKOUT / "examples").glob("*.jpg")}
    assert all(row.startswith(("CC0", "public domain")) for row in rows.values())


def test_the_drawn_masks_fit_their_photographs() -> None:
    questions = json.loads((RELEASE / "questions.json").read_text(encoding="utf-8"))
    for name, question in questions.items():
        drawn = json.loads((RELEASE / f"{name}.json").read_text(encoding="utf-8"))
        picture = load_image(CHECKOUT / "examples" / f"{name}.jpg")
        assert [drawn["imageWidth"], drawn["imageHeight"]] == list(picture.size)
        assert load_image(RELEASE / f"{name}.png").size == picture.size
        labels = {shape["label"] for shape in drawn["shapes"]}
        assert not any(label in question for label in labels)  # the question does not name it
