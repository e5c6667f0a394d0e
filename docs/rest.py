"""Docstrings are written for editors, which read reStructuredText; the pages are Markdown.

Besides, what only the library itself calls is left out, and names of the library's own that stand
for a default are told by what they mean.
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:class|meth|func|attr|mod|exc):`(?P<short>~?)(?P<path>[\w.]+)`")
_LITERAL: Final = re.compile(
    r"^(?P<margin> *)(?P<text>.*?)::\n(?P<code>(?:\n|(?P=margin) +.*(?:\n|\Z))+)", re.MULTILINE
)
_INTERNAL: Final = frozenset(
    {
        "run_task.tasks._collect.DataSets.of",
        "run_task.tasks._dataset.DataSet.of",
        "run_task.tasks._tick.Tick.due",
        "run_task.tasks._tick.Tick.of",
        "run_task.runner._runner.Runner.finish",
        "run_task.runner._stats.Percentiles.of",
    }
)
_MADE_ELSEWHERE: Final = frozenset(
    {
        "run_task.sync._channel.Receiver",
        "run_task.sync._channel.Sender",
        "run_task.pipeline._stage.Stage",
        "run_task.data.series._view.TimeSeriesView",
        "run_task.sources._paced.Paced",
        "run_task.sources._paced.PacedBatches",
        "run_task.sources._polling.Polling",
    }
)
"""Classes of which users have objects, but do not make them."""
_MEANT: Final = {
    "DEFAULT_INTERVAL": "TaskInterval.seconds(5)",
    "_DEFAULT_CONFIG": "RunnerConfig()",
    "DEFAULT_TIMEOUT": "10.0",
    "_NOTHING": "{}",
}
_NOISE: Final = frozenset({"class-attribute", "instance-attribute"})


class Rest(griffe.Extension):
    """Turns roles into links, and ``::`` before indented code into what Markdown has for it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite what was collected of an object, and its docstring."""
        obj.labels -= _NOISE
        if obj.path in _INTERNAL and obj.parent is not None:
            del obj.parent.members[obj.name]
        if obj.path in _MADE_ELSEWHERE:
            obj.members.pop("__init__", None)
        for parameter in obj.parameters if isinstance(obj, griffe.Function) else ():
            parameter.default = _MEANT.get(str(parameter.default), parameter.default)
            if parameter.kind is griffe.ParameterKind.var_keyword:
                parameter.default = None
        if obj.docstring is None:
            return

        def link(role: re.Match[str]) -> str:
            path = role["path"]
            shown = f"`{path.rpartition('.')[2] if role['short'] else path}`"
            target = _resolved(obj, path)
            # A name of our own that leads nowhere is a mistake, which the build reports.
            return f"[{shown}][{target}]" if target.startswith("run_task.") else shown

        text = _ROLE.sub(link, obj.docstring.value)
        obj.docstring.value = _LITERAL.sub(_fenced, text)
        if ":raises" in text:
            _link_errors(obj, obj.docstring)


def _link_errors(obj: griffe.Object, docstring: griffe.Docstring) -> None:
    """Make names of what Sphinx fields say is raised: to griffe they are mere text."""
    scope = obj if isinstance(obj, griffe.Class | griffe.Function) else obj.parent
    for section in docstring.parsed:
        if isinstance(section, griffe.DocstringSectionRaises):
            for raised in section.value:
                if isinstance(raised.annotation, str):
                    raised.annotation = griffe.ExprName(raised.annotation, parent=scope)


def _fenced(literal: re.Match[str]) -> str:
    margin, text = literal["margin"], literal["text"]
    code = textwrap.dedent(literal["code"]).strip("\n")
    fence = f"```{'python' if _is_python(code) else ''}\n{code}\n```"
    above = f"{margin}{text}:\n\n" if text else ""
    return f"{above}{textwrap.indent(fence, margin)}\n\n"


def _is_python(code: str) -> bool:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        compile(code, "docstring", "exec", flags)
    except SyntaxError:
        return False
    return True


def _resolved(obj: griffe.Object, path: str) -> str:
    """The full path of what a role names, seen from where its docstring stands."""
    head, dot, rest = path.partition(".")
    if head in obj.members:
        return f"{obj.path}.{path}"
    try:
        return obj.resolve(head) + dot + rest
    except griffe.NameResolutionError:
        return path
