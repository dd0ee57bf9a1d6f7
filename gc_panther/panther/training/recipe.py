"""Recipes of PANTHER's tasks: phantoms, and rounds of training on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gc_panther.nnunet.training.recipe import Millimetres, Positive, Recipe, Schedule, Section


class PhantomCases(Section):
    """Synthetic cases, made by ``gc_panther.panther.phantom``.

    Attributes:
        task: whose geometry and contrast.
        cases: how many.
        seed: the phantom's seed; no test uses the same.
        contrast: another contrast than the task's own.
        varied: other patients, fields of view and voxels than the task's protocol has.
        spacing_xyz: another voxel size than the task's own, mm; the field of view stays.
        unlabelled: further images without labels, for the rounds of students.
    """

    task: Literal["task1", "task2"]
    cases: Positive
    seed: Annotated[int, Field(ge=0)]
    contrast: Literal["t1", "t2", "mixed", "random"] | None = None
    varied: bool = False
    spacing_xyz: tuple[Millimetres, Millimetres, Millimetres] | None = None
    unlabelled: Annotated[int, Field(ge=0)] = 0


class PantherRecipe(Recipe):
    """What the recipes of both tasks have.

    Attributes:
        phantoms: the data, where the user gives none.
    """

    phantoms: PhantomCases | None = None


class WarmUp(Section):
    """A round of training on further phantoms; the last round's network starts every fold.

    Attributes:
        phantoms: the round's cases, none of them in any fold.
        schedule: of the round, which starts from the round before.
    """

    phantoms: PhantomCases
    schedule: Schedule
