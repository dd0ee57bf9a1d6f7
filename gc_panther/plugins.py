"""Builds the plugin manager and answers questions about what is registered."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib import metadata
from typing import cast

import pluggy

from gc_panther import hookspecs
from gc_panther.errors import PluginError
from gc_panther.task import Task

ENTRY_POINT_GROUP = hookspecs.PROJECT

#: What the core computes with.
DISTRIBUTIONS = ("SimpleITK", "numpy", "scipy", "pluggy")


def create_plugin_manager(
    extra: Iterable[object] = (), *, broken: dict[str, PluginError] | None = None
) -> pluggy.PluginManager:
    """Return a new manager with every installed plugin registered.

    Args:
        extra: further plugin modules or objects, registered after the installed ones; tests and
            embedding programs use it.
        broken: where it is given, installed plugins that cannot be imported are left out, and the
            reason is put in here by the plugin's name. Only for commands that segment nothing: what
            a plugin would have checked is not checked without it.

    Raises:
        PluginError: a plugin cannot be imported or implements a hook that does not exist.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for entry in _entry_points(tuple(sys.path)):
        try:
            manager.register(entry.load(), name=entry.name)
        except Exception as error:  # a plugin's import may raise anything
            failure = _not_loaded(f"the plugin {entry.name!r}", error)
            if broken is None:
                raise failure from error
            broken[entry.name] = failure
    try:
        for plugin in extra:
            manager.register(plugin)
        for declared in manager.hook.gc_panther_hookspecs():
            for module in declared:
                manager.add_hookspecs(module)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _not_loaded("a plugin", error) from error
    return manager


@lru_cache(maxsize=4)
def _entry_points(_path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """What is installed on a search path; found once, because it reads every distribution."""
    found = metadata.entry_points(group=ENTRY_POINT_GROUP)
    return tuple(sorted(found, key=lambda entry: entry.name))


def distribution_of(manager: pluggy.PluginManager, plugin: object) -> metadata.Distribution | None:
    """Return the distribution that an installed plugin comes from; None for any other plugin."""
    name = manager.get_name(plugin)
    return next((e.dist for e in _entry_points(tuple(sys.path)) if e.name == name), None)


def _not_loaded(plugin: str, error: Exception) -> PluginError:
    return PluginError(
        f"{plugin} cannot be loaded ({type(error).__name__}: {error})",
        where=f"entry-point group {ENTRY_POINT_GROUP!r}",
        fix="Repair or uninstall the distribution that provides it",
    )


def installed_versions(manager: pluggy.PluginManager) -> dict[str, str | None]:
    """Versions of what the core and the plugins list; None where it is not installed."""
    named = [
        *DISTRIBUTIONS,
        *(n for names in manager.hook.gc_panther_distributions() for n in names),
    ]
    return {name: _version_of(name) for name in dict.fromkeys(named)}


@cache
def _version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def registered_tasks(manager: pluggy.PluginManager) -> dict[str, Task]:
    """Return the registered tasks by name, sorted.

    Raises:
        PluginError: two plugins provide a task of the same name.
    """
    tasks: dict[str, Task] = {}
    for provided in manager.hook.gc_panther_tasks():
        for task in provided:
            if task.name in tasks:
                raise PluginError(
                    f"two plugins provide a task named {task.name!r}",
                    fix="Uninstall one of them",
                )
            tasks[task.name] = task
    return dict(sorted(tasks.items()))


def find_task(manager: pluggy.PluginManager, name: str, *, where: str = "") -> Task:
    """Return the task called ``name``.

    Args:
        manager: the plugins.
        name: the task's.
        where: the variable that names it, for the message.

    Raises:
        PluginError: there is none; the message lists those there are.
    """
    tasks = registered_tasks(manager)
    if name not in tasks:
        known = ", ".join(tasks) or "none is installed"
        raise PluginError(
            f"there is no task {name!r} (known: {known})",
            where=where,
            fix="`gc-panther tasks` lists them; install the task's distribution to add one",
        )
    return tasks[name]


def plugin_of(manager: pluggy.PluginManager, task: Task) -> str:
    """Return the name of the plugin that provides a task, or the task's module."""
    for implementation in manager.hook.gc_panther_tasks.get_hookimpls():
        provided = cast("Iterable[Task]", implementation.function())
        if any(type(one) is type(task) for one in provided):
            found = distribution_of(manager, implementation.plugin)
            return found.name if found else implementation.plugin_name
    return type(task).__module__
