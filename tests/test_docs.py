"""The documents say what is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(
            f"docs/{page}.md"
            for page in (
                "runs",
                "recipe",
                "data",
                "plan",
                "devices",
                "backends",
                "studies",
                "export",
                "benchmarks",
                "suite",
                "judging",
                "judges",
                "keys",
                "llama-cpp",
            )
        ),
    ],
)
def test_links_inside_the_repository_lead_somewhere(page: str):
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target
