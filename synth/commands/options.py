"""Options in groups: `--help` shows the usual ones under headings, `--help-all` every one of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.commands.printing import echo

Decorator = Callable[[Any], Any]
SHOW_ALL = "synth.commands.options.show_all"  # a key of click's context


class Option(click.Option):
    """An option that stands under a heading of the help. A rare option shows in `--help-all` only."""

    def __init__(self, *names: Any, group: str = "Options", rare: bool = False, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.group, self.rare = group, rare


class Command(click.Command):
    """A command whose help shows its options under their headings, in the order of the first option of each heading."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), HELP_ALL]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        show_all = bool(ctx.meta.get(SHOW_ALL))
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            hidden = getattr(param, "rare", False) and not show_all
            if hidden or isinstance(param, click.Argument):
                continue
            record = param.get_help_record(ctx)
            if record is not None:
                headings.setdefault(getattr(param, "group", "Help"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def show_everything(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[SHOW_ALL] = True
        echo(ctx.get_help())
        ctx.exit()


HELP_ALL = Option(
    ["--help-all"],
    group="Help",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_everything,
    help="Show every option, the rare ones too.",
)


def option(*names: str, group: str, rare: bool = False, **attributes: Any) -> Decorator:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, group=group, rare=rare, **attributes)


def stacked(*decorators: Decorator) -> Decorator:
    """The decorators as one, in the order of the help."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


MACHINE = "Machine"  # the heading of what a computer is asked for
OF_ALL = ("precision", "layout")  # settings that every command has, under that heading


def settings_flags(
    settings: Mapping[str, type],
    headings: Mapping[str, str],
    shared: str = "",
    forms: Mapping[str, Mapping[str, Any]] | None = None,
) -> Decorator:
    """One option per setting, None unless given. Its default stands in the help.

    Args:
        settings: settings classes by the name of their method.
        headings: the heading of each method's own settings.
        shared: the heading of settings that several of the methods have.
        forms: the methods' default settings for other images, by the name of these images.
    """
    others = forms or {}
    owners: dict[str, dict[str, dataclasses.Field[Any]]] = {}
    for method, settings_class in settings.items():
        for field in dataclasses.fields(settings_class):
            owners.setdefault(field.name, {})[method] = field

    def place(name: str) -> tuple[int, str]:
        """Settings of several methods come first, then each method's own, then those of every command."""
        if name in OF_ALL:
            return len(settings) + 1, MACHINE
        if len(owners[name]) > 1:
            return 0, shared
        method = next(iter(owners[name]))
        return 1 + list(settings).index(method), headings[method]

    names = sorted(owners, key=lambda name: place(name)[0])  # a stable sort: a class's own order stays
    return stacked(*(settings_flag(name, owners[name], settings, place(name)[1], others) for name in names))


def settings_flag(
    name: str,
    fields: Mapping[str, dataclasses.Field[Any]],
    settings: Mapping[str, type],
    heading: str,
    forms: Mapping[str, Mapping[str, Any]],
) -> Decorator:
    method, field = next(iter(fields.items()))
    flag = "--" + name.replace("_", "-")
    kind = typing.get_type_hints(settings[method])[name]
    kind = next((t for t in typing.get_args(kind) if t is not type(None)), kind)
    differ = len({field.default for field in fields.values()}) > 1  # then the defaults name the methods
    only = "" if differ or len(fields) in (1, len(settings)) else f"{', '.join(fields)}; "
    help_text = field.metadata["help"]
    if not (default_text(fields) == "default: none" and "by default" in help_text):
        help_text += f"  [{only}{default_text(fields)}{texts_of_forms(fields, forms)}]"
    rare = all(f.metadata.get("rare", False) for f in fields.values())
    if kind is bool:
        return option(f"{flag}/--no-{flag[2:]}", name, group=heading, rare=rare, default=None, help=help_text)
    choices = field.metadata.get("choices")
    kind = click.Choice(choices) if choices else kind
    return option(flag, name, group=heading, rare=rare, type=kind, default=None, help=help_text)


def default_text(fields: Mapping[str, dataclasses.Field[Any]]) -> str:
    """`default: 100`, or where the methods differ `default: 100 (deepinversion), 5 (fast)`."""
    shown = {method: show_default(field.default) for method, field in fields.items()}
    if len(set(shown.values())) == 1:
        return f"default: {next(iter(shown.values()))}"
    return "default: " + ", ".join(f"{value} ({method})" for method, value in shown.items())


def texts_of_forms(fields: Mapping[str, dataclasses.Field[Any]], forms: Mapping[str, Mapping[str, Any]]) -> str:
    """`; photographs: 200`, or where several methods have the setting `; photographs: 200 (deepinversion)`."""
    return "".join(f"; {name}: {text}" for name, of in forms.items() if (text := text_of_form(fields, of)))


def text_of_form(fields: Mapping[str, dataclasses.Field[Any]], settings: Mapping[str, Any]) -> str:
    shown = {
        method: show_default(getattr(settings[method], field.name))
        for method, field in fields.items()
        if method in settings and getattr(settings[method], field.name) != field.default
    }
    return ", ".join(value if len(fields) == 1 else f"{value} ({method})" for method, value in shown.items())


def show_default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


def settings_from_flags(base: Any, flags: Mapping[str, Any], method: str) -> Any:
    """`base` with the flags that were given. Raises UsageError for a flag that the method doesn't have, or out of
    range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    known = {field.name for field in dataclasses.fields(base)}
    for name in given:
        if name not in known:
            raise UsageError(f"--{name.replace('_', '-')} has no effect on {method}: leave it out")
    try:
        return dataclasses.replace(base, **given)
    except ValueError as error:
        raise UsageError(f"{error}") from error
