"""What a model says about itself: which kind of weights it holds, and under which licence.

A weights pack says it in its manifest (:mod:`gc_panther.nnunet.model.manifest`), any other model
folder in ``model.json``; folders without it are of unknown origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from gc_panther.errors import UserError, WeightsError

#: The file of a weights pack with the digests of all its other files.
MANIFEST = "pack.json"
#: The file in which a model folder that is not a pack says what it is.
IDENTITY_FILE = "model.json"
#: No text that describes a model is longer; a manifest lists a few thousand tensors.
LARGEST_DOCUMENT = 16 << 20
#: What everybody has to know about weights of that kind.
DEMONSTRATION = "demonstration weights, trained on synthetic images, not for patients"

Kind = Literal["demonstration", "trained"]


def _one_printable_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


Line = Annotated[str, StringConstraints(max_length=200), AfterValidator(_one_printable_line)]


class ModelIdentity(BaseModel):
    """Where a model comes from, as far as it says.

    Attributes:
        kind: ``demonstration`` for weights that were trained on synthetic images only, ``trained``
            for others, None if unknown.
        title: what a person reads.
        licence: of the weights, such as ``Apache-2.0``.
        model_card: name of the file that describes data, training and limits.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    kind: Kind | None = None
    title: Line = ""
    licence: Line = ""
    model_card: Line = ""


def read_identity(folder: Path) -> ModelIdentity:
    """What a model folder says about itself; an empty identity if it has no such file.

    Raises:
        WeightsError: the file is damaged, or a field of it is wrong.
    """
    for path in (folder / MANIFEST, folder / IDENTITY_FILE):
        if not path.is_file():
            continue
        try:
            return ModelIdentity.model_validate_json(read_document(path))
        except ValidationError as error:
            raise WeightsError(
                f"{path.name} does not say what the model is ({validation_problem(error)})",
                where=path,
                fix="Copy the model again",
            ) from error
    return ModelIdentity()


def read_document(path: Path) -> str:
    """The text of a small file of a model.

    Raises:
        WeightsError: it cannot be read, is far too large, or is not UTF-8.
    """
    problem = ""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_DOCUMENT + 1)
        if len(content) <= LARGEST_DOCUMENT:
            return content.decode()
        problem = f"is larger than {LARGEST_DOCUMENT >> 20} MiB"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    raise WeightsError(f"{path.name} {problem}", where=path, fix="Copy the model again")


def validation_problem(error: ValidationError) -> str:
    """The first problem of a validation in a few words, with the field's name."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def changed_identity(identity: ModelIdentity, **changes: str | None) -> ModelIdentity:
    """The same identity with some fields replaced; those that are None stay.

    Raises:
        UserError: a field cannot have its value.
    """
    wanted = {name: value for name, value in changes.items() if value is not None}
    try:
        return ModelIdentity.model_validate({**identity.model_dump(), **wanted})
    except ValidationError as error:
        raise UserError(f"the model's {validation_problem(error)}") from error


def demonstration_warning(names: Sequence[str]) -> str:
    """The warning that accompanies every use of demonstration weights."""
    return f"{DEMONSTRATION} ({', '.join(names)})"


def describe_model(path: Path, identity: ModelIdentity) -> str:
    """Where a model is and what it is, for a person."""
    kind = DEMONSTRATION if identity.kind == "demonstration" else identity.kind
    facts = "; ".join(fact for fact in (identity.title, kind, identity.licence) if fact)
    return f"{path} ({facts})" if facts else str(path)
