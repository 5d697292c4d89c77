"""Rubrics: what a judge grades, and what each grade means. One YAML file each in judge/rubrics/, or the user's own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from edgetune import assets
from edgetune.judging.suites.identity import hash_value
from edgetune.recipe.load import find_named
from edgetune.recipe.section import Section
from edgetune.recipe.yaml_input import read_mapping, validate

SCALE = (1, 2, 3, 4, 5)
"""The grades, from worst to best."""

RESERVED_NAMES = ("reason", "winner", "preference")


class Criterion(Section):
    """One criterion of a rubric."""

    question: str = Field(min_length=1, description="The criterion as a question about the answer.")
    grades: dict[int, str] = Field(description="The meaning of each grade from 1 (worst) to 5 (best).")

    @field_validator("grades")
    @classmethod
    def _every_grade_has_an_anchor(cls, grades: dict[int, str]) -> dict[int, str]:
        missing = [str(grade) for grade in SCALE if not grades.get(grade, "").strip()]
        if missing:
            raise ValueError(f"every grade from 1 to 5 needs an anchor; there is none for {', '.join(missing)}")
        if strangers := sorted(set(grades) - set(SCALE)):
            raise ValueError(f"grades run from 1 to 5; there is an anchor for {', '.join(map(str, strangers))}")
        return dict(sorted(grades.items()))


class Rubric(Section):
    """Criteria that are graded in one call per answer, and a sentence that says which of two answers is better."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Lower case.")
    description: str = Field("", description="A one-line description.")
    criteria: dict[str, Criterion] = Field(
        min_length=1, description="Name -> criterion; names have lower case, digits and underscores."
    )
    better: str = Field(
        "the one that follows the instruction more exactly, is right, and leaves nothing out; length by itself is "
        "no merit",
        description="For pairs: says which of two answers is better.",
    )

    @field_validator("criteria")
    @classmethod
    def _names_are_plain(cls, criteria: dict[str, Criterion]) -> dict[str, Criterion]:
        for name in criteria:
            if not (name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()):
                raise ValueError(f"{name!r} must be lower-case letters, digits and underscores")
            if name in RESERVED_NAMES:
                raise ValueError(f"{name!r} is taken: it names another part of a verdict")
        return criteria

    def sha256(self) -> str:
        """Hash of everything that a judge reads of it."""
        return hash_value(self.model_dump(mode="json", exclude={"name", "description"}))


def shipped_rubrics() -> dict[str, Path]:
    """The rubrics that ship with edgetune, by name."""
    return assets.shipped_files("judge", "rubrics/*.yaml")


def load_rubric(name: str) -> Rubric:
    """Read a rubric by path or shipped name. Raises RecipeError naming file and field."""
    shipped = shipped_rubrics()
    path = find_named(
        name, shipped, kind="rubric", remedy=f"give the path of a rubric file, or one that ships: {', '.join(shipped)}"
    )
    return validate(Rubric, read_mapping(path), where=str(path))
