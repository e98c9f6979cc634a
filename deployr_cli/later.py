"""Commands whose modules are imported when they are called: a command that is in a hurry pays for no other one.

What the help of all commands shows of them is given beforehand, so that nothing is imported for that either.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def group_of(later: Mapping[str, Mapping[str, str]]) -> type[TyperGroup]:
    """Give the class of a group that has these commands, too, after its own.

    Args:
        later: by the heading of the help and by name, what the help of all commands says of each. The module of its
            name in `deployr_cli` has the command itself: the function of its name, or a `typer.Typer`, ``NAME_app``.
    """

    class Group(TyperGroup):
        def __init__(self, **attrs: Any) -> None:
            super().__init__(**attrs)
            self._waiting = {name: panel for panel, says in later.items() for name in says}
            for name, panel in self._waiting.items():
                self.add_command(TyperGroup(name=name, help=later[panel][name], rich_help_panel=panel))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if args:
                self.bring(args[0])
            return super().resolve_command(ctx, args)

        def bring(self, name: str) -> None:
            """Import a command that was not imported yet; of another name nothing is done."""
            panel = self._waiting.pop(name, None)
            if panel is None:
                return
            module, beside = import_module(f"deployr_cli.{name}"), typer.Typer(rich_markup_mode="rich")
            if (group := getattr(module, f"{name}_app", None)) is not None:
                beside.add_typer(group, name=name, rich_help_panel=panel)
            else:
                beside.command(name, rich_help_panel=panel)(getattr(module, name))
            self.add_command(typer.main.get_group(beside).commands[name])

        def bring_all(self) -> None:
            """Import them all, for whoever wants to see every option."""
            for name in tuple(self._waiting):
                self.bring(name)

    return Group
