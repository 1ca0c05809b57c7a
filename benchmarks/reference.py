"""Reference tables that are read off the code: verbs, settings, metrics, errors."""

from __future__ import annotations

from enum import Enum
from inspect import Parameter, getdoc, signature, unwrap
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from typer.models import OptionInfo

from nps_store.cli import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import typer
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from formats.errors import NpsError


def verbs_table() -> str:
    """Every verb and what it does, in a line."""
    rows = ["| verb | does |", "|---|---|"]
    rows += [f"| `{name}` | {_first_sentence(verb)} |" for name, verb in _verbs(build())]
    return "\n".join(rows) + "\n"


def cli_reference() -> str:
    """Every verb with its arguments and options, as its help has them."""
    return "\n".join(_section(name, verb) for name, verb in _verbs(build()))


def settings_table() -> str:
    """Every setting of the service."""
    from server.settings import Settings

    rows = ["| variable | default | is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `NPS_{name.upper()}` | {default} | {_cell(field.description or '')} |")
    return "\n".join(rows) + "\n"


def metrics_table() -> str:
    """Every metric of the torch engine, by the name that Prometheus sees."""
    from server.metrics import Metrics

    return _metrics(_described(Metrics(engine="torch").registry))


def vllm_metrics_table() -> str:
    """Every metric that the vLLM engine has beside vLLM's own."""
    from prometheus_client.registry import CollectorRegistry

    from server.engines.vllm.metrics import Metrics, Switches

    registry = CollectorRegistry()
    Metrics(registry)
    told = ((family, family._labelnames) for family in Switches([Switches.NONE]).collect())  # type: ignore[attr-defined]  # noqa: SLF001
    return _metrics([*_described(registry), *told])


def errors_table() -> str:
    """Every error class with its exit code."""
    import nps_store.errors
    import server.errors  # noqa: F401 (its classes join the tree)

    rows = ["| exit code | id | meaning |", "|---|---|---|"]
    rows += [
        f"| {error.exit_code} | `{error.id}` | {(error.__doc__ or '').splitlines()[0]} |"
        for error in sorted(_subclasses(nps_store.errors.NpsError), key=lambda e: e.exit_code)
    ]
    return "\n".join(rows) + "\n"


REFERENCE: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        verbs_table,
        cli_reference,
        settings_table,
        metrics_table,
        vllm_metrics_table,
        errors_table,
    )
}


def _described(registry: CollectorRegistry) -> Iterator[tuple[Metric, Iterable[str]]]:
    """Each metric with its labels."""
    for metric in registry._collector_to_names:  # noqa: SLF001 (labels are told nowhere else)
        (family,) = metric.describe()
        yield family, metric._labelnames  # type: ignore[attr-defined]  # noqa: SLF001


def _metrics(families: Iterable[tuple[Metric, Iterable[str]]]) -> str:
    rows = ["| metric | kind | labels | is |", "|---|---|---|---|"]
    for family, names in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in names)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def _verbs(app: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names and functions, those of a group with the group's name before them."""
    for command in app.registered_commands:
        if command.callback is not None:
            yield command.name or command.callback.__name__, unwrap(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from (
                (f"{group.name} {name}", verb) for name, verb in _verbs(group.typer_instance)
            )


def _section(name: str, verb: Callable[..., Any]) -> str:
    words, example = [], []
    for line in (getdoc(verb) or "").splitlines():
        head, is_example, command = line.partition("Example: ")
        if is_example and not head:
            example.append(f"    {command}")
        else:
            words.append(line)
    rows = ["| argument | default | is |", "|---|---|---|"]
    hints = get_type_hints(verb, include_extras=True)
    rows += [_parameter(each, hints[each.name]) for each in signature(verb).parameters.values()]
    parts = [f"## nps {name}", "\n".join(words).strip(), "\n".join(example), "\n".join(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _parameter(parameter: Parameter, hint: Any) -> str:  # noqa: ANN401 (an annotation)
    kind, about = get_args(hint)
    if isinstance(about, OptionInfo):
        name = ", ".join(about.param_decls or (f"--{parameter.name.replace('_', '-')}",))
    else:
        name = parameter.name.upper()
    default, told = parameter.default, ""
    if default is Parameter.empty:
        told = "required"
    elif default is not None and default is not False:
        told = f"`{getattr(default, 'value', default)}`"
    variable = f" Or the variable `{about.envvar}`." if about.envvar else ""
    return f"| `{name}` | {told} | {_cell(about.help or '')}{_choices(kind)}{variable} |"


def _choices(kind: Any) -> str:  # noqa: ANN401
    """Of an enumeration, or of one that may be left out."""
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and issubclass(each, Enum):
            return f" One of {', '.join(f'`{one.value}`' for one in each)}."
    return ""


def _first_sentence(verb: Callable[..., Any]) -> str:
    text = " ".join((getdoc(verb) or "").partition("\n\n")[0].split())
    return _cell(text.partition(". ")[0].removesuffix("."))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _subclasses(kind: type[NpsError]) -> set[type[NpsError]]:
    return {kind}.union(*(_subclasses(child) for child in kind.__subclasses__()))
