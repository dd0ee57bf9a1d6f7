"""Options: each is declared once, as a field of an :class:`Options` class.

The declaration gives its command-line flag, its environment variable, its Python argument, its help
text, its row in the documentation's table and its entry in the run report. A flag takes precedence
over the variable, and the variable over the default. Whatever the value comes from, pydantic checks
it against the field's type and limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from inspect import get_annotations
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gc_panther.errors import PluginError, UserError
from gc_panther.text import alternatives

Group = TypeVar("Group", bound="Options")

_BOOLEAN = TypeAdapter(bool)


@dataclass(frozen=True)
class Option:
    """What the type and the description of a field leave open; all of it may be left out.

    Attributes:
        flag: the command line's; ``--name`` if empty, and ``--name/--no-name`` for a boolean.
            None for what only the environment sets.
        variable: the environment's; ``GC_PANTHER_NAME`` if empty.
        inverted: the variable of a boolean means the opposite.
        accepts: which values are valid, as a sentence for messages; where the type does not say.
        shown_default: the default in words.
        platform_default: the default of the commands that the platform starts (``run`` and
            ``serve``); None where it is that of all others.
    """

    flag: str | None = ""
    variable: str = ""
    inverted: bool = False
    accepts: str = ""
    shown_default: str = ""
    platform_default: Any = None


class Options(BaseModel):
    """Base of a group of options; the fields of a subclass are the options.

    The description of a field is its help text. An :class:`Option` in a field's annotation says
    what type and description leave open::

        class BrightOptions(Options):
            percentile: Annotated[
                float, Field(gt=0, lt=100, description="What is brighter is marked.")
            ] = 99.0

    Raises:
        UserError: a value is not valid, or there is no such option.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Refuse a class with an option that has no default."""
        for name, info in cls.model_fields.items():
            if info.is_required():
                raise TypeError(f"{cls.__qualname__}.{name} needs a default")

    def __init__(self, sources: Mapping[str, str] | None = None, /, **values: Any) -> None:
        """Check the values.

        Args:
            sources: for the message, the flag or variable of values that come from one, by name.
            values: of the options that are given, by name.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refused(type(self), error, values, sources or {}) from None


@dataclass(frozen=True)
class Declared:
    """One option. Two are equal if they are the same declaration, in one place of the code.

    Attributes:
        name: the field's.
        owner: the class that declares it, which may be a base of the one it was found in.
        info: pydantic's facts: type, default, limits, description.
        option: what they leave open.
    """

    name: str
    owner: type[Options]
    info: FieldInfo = field(compare=False, repr=False)
    option: Option = field(compare=False, repr=False)

    @cached_property
    def variable(self) -> str:
        """The environment variable."""
        return self.option.variable or f"GC_PANTHER_{self.name.upper()}"

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """The flag; for a boolean those for true and for false. Empty if there is none."""
        if self.option.flag is None:
            return ()
        plain = self.name.replace("_", "-")
        standard = f"--{plain}/--no-{plain}" if self.is_boolean else f"--{plain}"
        return tuple((self.option.flag or standard).split("/"))

    @cached_property
    def help(self) -> str:
        """What it is, and which words it can be."""
        text = self.info.description or ""
        return f"{text.rstrip('.')}: {alternatives(self.choices)}." if self.choices else text

    @cached_property
    def type(self) -> Any:
        """Its type, without the None of an option that may be unset."""
        kind = self.info.annotation
        if get_origin(kind) in (Union, UnionType):
            kinds = [one for one in get_args(kind) if one is not type(None)]
            return kinds[0] if len(kinds) == 1 else kind
        return kind

    @property
    def is_boolean(self) -> bool:
        """Whether it has a flag for either value."""
        return self.type is bool

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The words it can be, if its type lists them."""
        listed = get_args(self.type) if get_origin(self.type) is Literal else ()
        return tuple(str(word) for word in listed if word != "")

    @cached_property
    def accepts(self) -> str:
        """Which values are valid, as a sentence for messages; empty if it accepts any."""
        if self.option.accepts:
            return self.option.accepts
        if self.is_boolean:
            return "Use 1 or 0 (true or false, yes or no, y or n, on or off)"
        if self.choices:
            return f"Choose {alternatives(self.choices)}"
        if self.type in (int, float):
            number = "a number" if self.type is float else "a whole number"
            return f"Give {number} {_limits(self.info.metadata)}".strip()
        return ""

    def default(self, *, on_platform: bool = False) -> Any:
        """The value without flag and variable."""
        if on_platform and self.option.platform_default is not None:
            return self.option.platform_default
        return self.info.get_default(call_default_factory=True)

    def shown_default(self, *, on_platform: bool = False) -> str:
        """The default as a person reads it; empty where nothing is the default."""
        if self.option.shown_default:
            return self.option.shown_default
        value = self.default(on_platform=on_platform)
        if value is None:
            return ""
        if self.is_boolean:
            return self.flag_of(value) if self.flags else str(int(value))
        return str(value)

    def flag_of(self, value: str | bool) -> str:
        """The flag that was given for a value."""
        return self.flags[0] if value is not False else self.flags[1]

    def of_variable(self, text: str) -> Any:
        """The value that the variable's text stands for; the text itself where that is unclear."""
        if not self.is_boolean:
            return text
        try:
            return _BOOLEAN.validate_python(text.strip()) is not self.option.inverted
        except ValidationError:
            return text


class RunOptions(Options):
    """What a user may choose of every task: where it runs, with which weights, how long."""

    model_dir: Annotated[
        Path | None,
        Field(
            description="Weights, a folder or model.tar.gz, that take precedence over "
            "/opt/ml/model and the bundled ones."
        ),
    ] = None
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
            description="Where the networks run: auto, cpu, cuda or cuda:N.",
        ),
        Option(accepts="Choose auto, cpu, cuda or cuda:N"),
    ] = "auto"
    require_gpu: Annotated[bool, Field(description="Fail where no GPU can be used.")] = False
    time_limit: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds until the mask is there: folds and mirrored copies that do not "
            "fit are left out.",
        ),
        Option(shown_default="none"),
    ] = None


@cache
def declared(options: type[Options]) -> Mapping[str, Declared]:
    """The options of a class, by name, those of its bases first.

    Raises:
        PluginError: it is not a class of options, or a boolean has a flag for one direction only.
    """
    if not issubclass(options, Options):
        raise PluginError(
            f"{options.__qualname__} is not a subclass of gc_panther.options.Options",
            where=options.__module__,
        )
    found = {
        name: Declared(
            name,
            next(one for one in options.__mro__ if name in get_annotations(one)),
            info,
            next((one for one in info.metadata if isinstance(one, Option)), Option()),
        )
        for name, info in options.model_fields.items()
    }
    for name, one in found.items():
        if one.is_boolean and len(one.flags) == 1:
            raise PluginError(
                f"the option {name} has a flag for one direction only",
                where=f"{options.__module__}.{options.__qualname__}",
                fix=f"Write it as {one.flags[0]}/--no-{name.replace('_', '-')}",
            )
    return found


def read_options(
    options: type[Group],
    flags: Mapping[str, str | bool] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    on_platform: bool = False,
) -> Group:
    """Fill a group of options: flag over variable over default.

    Args:
        options: the group.
        flags: text or truth value of each flag that was given, by the option's name. Those of
            other groups are ignored.
        environ: instead of the process's environment. An empty variable is one that is not set.
        on_platform: take the defaults of the commands that the platform starts.

    Raises:
        UserError: a value is not valid; the message names its flag or variable.
    """
    flags = flags or {}
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, one in declared(options).items():
        if name in flags:
            values[name], sources[name] = flags[name], one.flag_of(flags[name])
        elif text := environ.get(one.variable, ""):
            values[name], sources[name] = one.of_variable(text), one.variable
        elif on_platform and one.option.platform_default is not None:
            values[name] = one.option.platform_default
    return options(sources, **values)


def environment_values(
    groups: Iterable[type[Options]], environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Each variable's value, or the default, JSON-compatible, by the variable's name.

    A default that depends on the command is None.

    Raises:
        UserError: a value is not valid.
    """
    found: dict[str, Any] = {}
    for group in groups:
        values, platform = (
            as_report(read_options(group, environ=environ, on_platform=on)) for on in (False, True)
        )
        for name, one in declared(group).items():
            value = values[name] if values[name] == platform[name] else None
            found[one.variable] = not value if one.option.inverted and value is not None else value
    return found


def merged_options(groups: Iterable[tuple[str, type[Options]]]) -> dict[str, Declared]:
    """The options of several groups, by name, each once.

    Args:
        groups: the groups, each with whose it is, for the message.

    Raises:
        PluginError: two groups declare different options of one name, flag or variable.
    """
    options: dict[str, Declared] = {}
    taken: dict[str, tuple[Declared, str]] = {}
    for whose, group in groups:
        for name, one in declared(group).items():
            for key in (name, *one.flags, one.variable):
                other, others = taken.setdefault(key, (one, whose))
                if other != one:
                    raise PluginError(
                        f"{others} and {whose} declare different options {key!r}",
                        where=f"{group.__module__}.{group.__qualname__}",
                        fix="Rename one of them, or inherit the other's declaration",
                    )
            options[name] = one
    return options


def as_report(*groups: Options) -> dict[str, Any]:
    """Name and JSON-compatible value of all options of some groups, for the run report."""
    return {
        name: value for group in groups for name, value in group.model_dump(mode="json").items()
    }


def options_table(options: Iterable[Declared]) -> str:
    """The documentation's table of options and variables, Markdown."""
    lines = ["| option | variable | default | what |", "|---|---|---|---|"]
    for one in options:
        flags = ", ".join(f"`{flag}`" for flag in one.flags)
        default, platform = (
            shown if one.option.shown_default or not shown else f"`{shown}`"
            for shown in (one.shown_default(on_platform=on) for on in (False, True))
        )
        if platform != default:
            default = f"{default}; {platform} for `run` and `serve`"
        variable = f"`{one.variable}`"
        if one.option.inverted:
            variable += f" (`1` is `{one.flag_of(False)}`)"
        lines.append(f"| {flags} | {variable} | {default} | {one.help} |")
    return "\n".join(lines) + "\n"


def _limits(metadata: Iterable[Any]) -> str:
    """The limits of a number in words, such as "above 0 and at most 1"."""
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    return " and ".join(
        f"{word} {getattr(one, limit):g}"
        for one in metadata
        for limit, word in words.items()
        if getattr(one, limit, None) is not None
    )


def _refused(
    options: type[Options],
    error: ValidationError,
    values: Mapping[str, Any],
    sources: Mapping[str, str],
) -> UserError:
    """The error for a value that is not valid.

    Args:
        options: the group.
        error: pydantic's.
        values: all values of the group, by name.
        sources: flag or variable of each value, by name; a Python argument has none.
    """
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return UserError(first["msg"].removeprefix("Value error, "))
    name, known = str(first["loc"][0]), declared(options)
    if name not in known:
        fix = f"Choose {alternatives(known)}" if known else ""
        return UserError(f"there is no option {name!r}", fix=fix)
    fix = known[name].accepts or first["msg"]
    return UserError(f"{sources.get(name, name)} is {values[name]!r}, which is not valid", fix=fix)
