"""The inference options: each is declared once, for all commands that segment.

A flag takes precedence over its environment variable, and that over the default.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import typer

from gc_panther.errors import UserError
from gc_panther.settings import VARIABLES, Settings, parse_folds

if TYPE_CHECKING:
    from gc_panther.session import Choices
    from gc_panther.task import Backend, Combine, Mode

T = TypeVar("T")

DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
]
RequireGpuOption = Annotated[
    bool | None,
    typer.Option("--require-gpu/--no-require-gpu", help="Fail where no GPU can be used."),
]
FoldsOption = Annotated[
    str | None, typer.Option(help="Folds to use, such as 0,1,2.", show_default="all required")
]


@dataclass(frozen=True)
class GivenOptions:
    """The options of one command line; None where one was not given."""

    model_dir: Annotated[
        Path | None,
        typer.Option(
            help="Weights, a folder or model.tar.gz, that take precedence over /opt/ml/model "
            "and the bundled ones."
        ),
    ] = None
    device: DeviceOption = None
    require_gpu: RequireGpuOption = None
    combine: Annotated[
        str | None,
        typer.Option(help="probabilities, logits or vote.", show_default="probabilities"),
    ] = None
    never_empty: Annotated[
        bool | None,
        typer.Option(
            "--never-empty/--keep-empty",
            help="Where nothing is found, mark the most probable place (run and serve, by "
            "default) or leave the mask empty (predict and cohort, by default).",
        ),
    ] = None
    folds: FoldsOption = None
    mirroring: Annotated[
        bool | None,
        typer.Option(
            "--mirroring/--no-mirroring",
            help="Average over mirrored copies.",
            show_default="mirroring",
        ),
    ] = None
    step_size: Annotated[
        float | None,
        typer.Option(
            help="Distance of neighbouring windows, as a fraction of the patch.", show_default="0.5"
        ),
    ] = None
    backend: Annotated[
        str | None, typer.Option(help="auto, torch or openvino.", show_default="auto")
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(
            help="exact, or adaptive: fewer passes where they hardly matter, an approximation.",
            show_default="exact",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Seconds until the mask is there: folds and mirrored copies that do not fit are "
            "left out.",
            show_default="none",
        ),
    ] = None

    def choices(self, settings: Settings, *, never_empty: bool) -> Choices:
        """Fill what was not given from the environment, then from the defaults.

        Args:
            settings: the environment.
            never_empty: the command's default for an empty mask.

        Raises:
            UserError: a value is not valid.
        """
        from gc_panther.runtime.info import process_start
        from gc_panther.session import Choices
        from gc_panther.task import InferenceOptions

        if self.model_dir is None and settings.model_dir and not settings.model_dir.exists():
            raise UserError(
                f"{VARIABLES['model_dir'][0]} names a folder that does not exist",
                where=settings.model_dir,
            )
        if self.time_limit is not None and not math.isfinite(self.time_limit):
            raise UserError(f"--time-limit is {self.time_limit}", fix="Give a number of seconds")
        keep_empty = _first(settings.keep_empty, not never_empty)
        if self.never_empty is not None:
            keep_empty = not self.never_empty
        return Choices(
            started=process_start(),
            device=_first(self.device, settings.device),
            require_gpu=_first(self.require_gpu, settings.require_gpu),
            model_dir=self.model_dir,
            options=InferenceOptions(
                combine=cast("Combine", _first(self.combine, settings.combine)),
                keep_empty=keep_empty,
                folds=settings.folds if self.folds is None else parse_folds(self.folds, "--folds"),
                mirroring=_first(self.mirroring, settings.mirroring),
                step_size=_first(self.step_size, settings.step_size),
                backend=cast("Backend", _first(self.backend, settings.backend)),
                mode=cast("Mode", _first(self.mode, settings.mode)),
            ),
            time_limit=settings.time_limit if self.time_limit is None else self.time_limit,
        )


def inference_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all inference options; it receives them as its argument ``given``."""
    hints = get_type_hints(GivenOptions, include_extras=True)
    shared = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(GivenOptions).parameters.items()
    ]
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.name != "given"]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        given = GivenOptions(**{one.name: values.pop(one.name) for one in shared})
        command(**values, given=given)

    # What Typer reads the options from.
    parameters = [*own, *shared]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    return wrapper


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
