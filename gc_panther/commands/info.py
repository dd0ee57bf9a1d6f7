"""``gc-panther tasks``, ``info`` and ``doctor``: what is installed, and whether it works."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from gc_panther.errors import GCPantherError, PluginError
from gc_panther.flags import Given, with_options
from gc_panther.options import RunOptions
from gc_panther.settings import read_settings


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (tasks, info, doctor):
        app.command()(command)


def tasks() -> None:
    """List the installed tasks."""
    from rich.console import Console
    from rich.table import Table

    from gc_panther.platform.sockets import unserved
    from gc_panther.plugins import create_plugin_manager, registered_tasks

    table = Table("task", "what it segments", "inputs", "models")
    broken: dict[str, PluginError] = {}
    for task in registered_tasks(create_plugin_manager(broken=broken)).values():
        table.add_row(
            task.name,
            "\n".join([task.title, *(f"not served: {problem}" for problem in unserved(task))]),
            "\n".join(" + ".join(interface.key) for interface in task.interfaces),
            "\n".join(model.name for model in task.models),
        )
    for name, failure in broken.items():
        table.add_row("–", str(failure), f"plugin {name}", "")
    Console(markup=False).print(table)


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, tasks, weights and settings."""
    from rich.console import Console
    from rich.table import Table

    from gc_panther.plugins import create_plugin_manager, registered_tasks
    from gc_panther.runtime.info import information

    manager = create_plugin_manager()
    facts = information(registered_tasks(manager).values(), manager)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False)
    table.add_row("gc_panther", facts["gc_panther"])
    for name, version in facts["versions"].items():
        table.add_row(name, version or "not installed")
    for task in facts["tasks"]:
        for model, found in task["weights"].items():
            table.add_row(f"{task['name']}: weights {model}", found["description"])
    for setting in facts["settings"].values():
        table.add_row(setting["variable"], str(setting["value"]))
    Console(markup=False).print(table)


@with_options(RunOptions, only=("device", "require_gpu"))
def doctor(
    given: Given,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that this machine can run the installed tasks; exit 1 if it cannot."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Nothing but JSON goes to stdout then, from what is imported here neither.
    with _only_errors_logged() if as_json else nullcontext():
        from gc_panther.commands.doctor import examine_installed
        from gc_panther.findings import failure
        from gc_panther.plugins import create_plugin_manager

        broken: dict[str, PluginError] = {}
        manager = create_plugin_manager(broken=broken)
        findings = [
            *(failure(f"plugin {name}", error) for name, error in broken.items()),
            *examine_installed(manager, read_settings(), given.read(RunOptions)),
        ]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        table = Table("check", "", "found", "what to do")
        for finding in findings:
            verdict = Text(finding.verdict, style=colours[finding.verdict])
            table.add_row(finding.check, verdict, finding.found, finding.fix)
        Console(markup=False).print(table)
    failed = [finding.check for finding in findings if finding.failed]
    if failed:
        raise GCPantherError(f"not ready: {', '.join(failed)}", fix="See the table for what to do")


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
