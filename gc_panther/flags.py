"""Options as flags of a Typer command: declared with the option, never with the command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gc_panther.errors import PluginError
from gc_panther.options import Declared, Group, Options, declared, read_options

#: As Typer names the types of its own options.
_METAVARS = {int: "<int>", float: "<float>", Path: "<path>"}


@dataclass(frozen=True)
class Given:
    """The options that a command line names.

    Attributes:
        values: text or truth value of each flag that was given, by the option's name.
        on_platform: whether the command has the platform's defaults.
    """

    values: Mapping[str, str | bool]
    on_platform: bool = False

    def read(self, options: type[Group], environ: Mapping[str, str] | None = None) -> Group:
        """A group of options: flag over variable over default.

        Args:
            options: the group.
            environ: instead of the process's environment.

        Raises:
            UserError: a value is not valid.
        """
        return read_options(options, self.values, environ, on_platform=self.on_platform)


def with_options(
    *groups: type[Options], only: Collection[str] = (), on_platform: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of options; it receives them as its argument ``given``.

    They are listed where ``given`` stands among the command's arguments.

    Args:
        groups: the options; one that several groups inherit counts once.
        only: names of those to take; all if empty.
        on_platform: the platform starts the command: take the defaults for that.
    """
    options = {
        name: one
        for group in groups
        for name, one in declared(group).items()
        if one.flags and (not only or name in only)
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = [_parameter(one, on_platform=on_platform) for one in options.values()]
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "given"]
        _check_free(options, own, command.__name__)

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            flags = {name: values.pop(name) for name in options}
            named = {name: value for name, value in flags.items() if value is not None}
            command(**values, given=Given(named, on_platform))

        parameters = [
            new
            for one in signature.parameters.values()
            for new in (shared if one.name == "given" else [one])
        ]
        # What Typer reads the options from; keywords, so that defaults may stand anywhere.
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
        return wrapper

    return decorate


def _parameter(one: Declared, *, on_platform: bool) -> inspect.Parameter:
    """A parameter that Typer makes the option of; its value is checked by the declaration."""
    option = typer.Option(
        "/".join(one.flags),
        help=one.help,
        show_default=one.shown_default(on_platform=on_platform).lstrip("-") or False,
        metavar=None if one.is_boolean else _METAVARS.get(one.type, "<str>"),
    )
    kind = bool | None if one.is_boolean else str | None
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _check_free(
    options: Mapping[str, Declared], own: Collection[inspect.Parameter], command: str
) -> None:
    """Refuse options that would take the place of what the command itself has.

    Raises:
        PluginError: with the option and the class that declares it.
    """
    taken = {parameter.name for parameter in own}
    for parameter in own:
        for info in getattr(parameter.annotation, "__metadata__", ()):
            taken.update(getattr(info, "param_decls", None) or ())
        taken.add("--" + parameter.name.replace("_", "-"))
    for name, one in options.items():
        covered = [key for key in (name, *one.flags) if key in taken]
        if covered:
            raise PluginError(
                f"the command {command} has something of its own called {covered[0]!r}",
                where=f"{one.owner.__module__}.{one.owner.__qualname__}",
                fix="Give the option another name or flag",
            )
