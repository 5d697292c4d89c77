"""The documents say what is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edgetune.cli.app import app
from edgetune.recipe.load import shipped_recipes, study_of

ROOT = Path(__file__).resolve().parents[1]


def test_the_references_are_those_of_the_schemas():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.PAGES) == {"recipe.md", "suite.md"}
    for name, page in module.PAGES.items():
        written = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/{name} is out of date; run: python docs/reference.py"


def test_the_readme_names_recipes_that_ship():
    table = re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert table
    assert set(table) <= set(shipped_recipes())


def test_every_recipe_of_a_study_stands_in_a_table_of_the_studies():
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs" / "studies.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(named) == sorted(name for name, file in shipped_recipes().items() if study_of(file))


PAGES = sorted(
    str(file.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "recipes/**/*.md", "judge/**/*.md", "deploy/**/*.md")
    for file in ROOT.glob(pattern)
)
OTHERS_FLAGS = {"--no-deps", "--log_samples", "--no-repack"}
"""Of pip, lm-evaluation-harness and llama.cpp's own programs."""


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page: str):
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_a_page_names_are_there(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:edgetune|benchmarks|tests|docs|recipes|judge|deploy)/[\w./-]+)`", text)
    named += re.findall(r"\bpython ((?:benchmarks|docs|deploy)/[\w./-]+)", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def commands() -> dict[tuple[str, ...], set[str]]:
    """The options of every command by its words, those of its own commands among them."""
    found: dict[tuple[str, ...], set[str]] = {}

    def visit(command: Any, words: tuple[str, ...]) -> set[str]:
        options = {"--help", *(name for option in command.params for name in option.opts)}
        for name, inner in getattr(command, "commands", {}).items():
            options |= visit(inner, (*words, name))
        found[words] = options
        return options

    visit(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str, commands: dict[tuple[str, ...], set[str]]):
    benchmarks = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").glob("*.py"))
    unknown = []
    for code in code_of((ROOT / page).read_text(encoding="utf-8")):
        called = re.search(r"\bedgetune ((?:[a-z]+ )*[a-z]+)?", code)
        ours = code if called is None else code[called.start() :]
        options = re.findall(r"(?<![\w-])--[a-z][a-z_-]*", ours.split("#")[0])
        if called is not None:
            words = tuple((called[1] or "").split())
            known = next(words[:length] for length in range(len(words), -1, -1) if words[:length] in commands)
            if words and not known:
                unknown.append(code)
            unknown += [option for option in options if option not in commands[known]]
        elif code.startswith("--"):
            known_flags = commands[()] | OTHERS_FLAGS
            unknown += [option for option in options if option not in known_flags and f'"{option}"' not in benchmarks]
    assert unknown == []


def code_of(page: str) -> list[str]:
    """The lines of code blocks, and what stands in code type in sentences."""
    blocks = re.findall(r"```.*?```", page, flags=re.DOTALL)
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose)
    return [line for block in blocks for line in block.splitlines()] + [span.replace("\n", " ") for span in spans]
