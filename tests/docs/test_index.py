"""docs/index.md links every page; what the pages link is there."""

import re
import shlex

import pytest

from helpers.commands import parse
from helpers.paths import CHECKOUT, DOCS

PAGES = sorted(path.name for path in DOCS.glob("*.md"))
LINK = re.compile(r"\]\(([^)#]+)\)")


def test_the_index_links_every_page_once() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = [target for target in LINK.findall(index) if "/" not in target]
    assert sorted(linked) == [page for page in PAGES if page != "index.md"]


@pytest.mark.parametrize(
    "path", [*(f"docs/{page}" for page in PAGES), "CONTRIBUTING.md", "CHANGELOG.md"]
)
def test_links_to_files_lead_somewhere(path: str) -> None:
    page = CHECKOUT / path
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    files = [target for target in targets if "://" not in target]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_files_that_contributing_names_are_there() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|docs|\.ci)/[\w./-]+)`", text)
    assert len(named) > 10
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


def test_the_commands_of_the_recipe_can_be_parsed() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert commands
    for command in commands:
        word, *arguments = shlex.split(command)
        assert word == "lisa"
        parse(arguments)
