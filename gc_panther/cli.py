"""The command line: assembles the commands of the core and of the plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gc_panther import __version__
from gc_panther.commands import info, segmenting
from gc_panther.program import PROGRAM, exit_code, run_program

if TYPE_CHECKING:
    import pluggy


def build_app(manager: pluggy.PluginManager) -> typer.Typer:
    """The whole command line, with the commands that plugins add."""
    app = typer.Typer(
        name=PROGRAM,
        help="Grand Challenge algorithm containers with plug-in segmentation tasks.",
        no_args_is_help=True,
        add_completion=False,
    )

    @app.callback(invoke_without_command=True)
    def root(
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            print(f"gc_panther {__version__}")
            raise typer.Exit
        segmenting.check_environment(manager)

    segmenting.register(app, manager)
    info.register(app)
    manager.hook.gc_panther_commands(app=app)
    return app


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""

    def run() -> object:
        from gc_panther.plugins import create_plugin_manager

        # Each command says itself what it makes of a plugin that cannot be loaded.
        app = build_app(create_plugin_manager(broken={}))
        return app(arguments, prog_name=PROGRAM, standalone_mode=False)

    return exit_code(run)


def main() -> NoReturn:
    """Run the command line; every failure ends in one line on stderr and an exit code."""
    run_program(invoke)
