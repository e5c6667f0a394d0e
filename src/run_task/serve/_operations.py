"""What the API offers, and what may be said to it: what is asked for is checked by this, and
OpenAPI tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import msgspec

from run_task.serve._guard import RefusedRequest

_NUMBER: Final = re.compile(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII
)

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})", re.ASCII)

_LONGEST_TEXT: Final = 1000
"""How many characters a parameter may have: names of stages and keys have fewer."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a query.

    :param name: its name
    :param kind: ``str``, ``float``, ``int`` or ``bool``
    :param default: what it is where it is not said
    :param about: what it means
    :param minimum: the least that it may be
    :param maximum: the most
    :param choices: what it may be; None: anything of its kind
    :param required: whether it has to be said
    :param form: what a text has the form of, if that cannot be said by a pattern
    """

    name: str
    kind: type
    default: Any = None
    about: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    required: bool = False
    form: str | None = None

    def parse(self, text: str) -> Any:
        """What a text says.

        :raises RefusedRequest: if it cannot be
        """
        value: Any = text
        if self.kind is bool:
            if text not in ("true", "false"):
                self._refuse(text, "it is true or false")
            value = text == "true"
        elif self.kind is not str:
            pattern, kind = (_INTEGER, int) if self.kind is int else (_NUMBER, float)
            if pattern.fullmatch(text) is None:
                self._refuse(text, "it is a whole number" if kind is int else "it is a number")
            value = kind(text)
            low, high = self.minimum, self.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                self._refuse(text, f"it is from {low:g} to {high:g}")
        elif len(text) > _LONGEST_TEXT:
            self._refuse(text, f"it has at most {_LONGEST_TEXT:,} characters")
        elif self.choices is not None and text not in self.choices:
            self._refuse(text, f"it is one of {', '.join(self.choices)}")
        return value

    def _refuse(self, text: str, cure: str) -> None:
        reason = f"{self.name}={text[:80]!r}: {cure}"
        raise RefusedRequest(HTTPStatus.UNPROCESSABLE_ENTITY, reason)

    def schema(self) -> dict[str, Any]:
        """What it may be, as JSON Schema has it."""
        types = {str: "string", float: "number", int: "integer", bool: "boolean"}
        told: dict[str, Any] = {"type": types[self.kind]}
        if self.kind is str:
            told["maxLength"] = _LONGEST_TEXT
        if self.form is not None:
            told["format"] = self.form
        if self.choices is not None:
            told = {"type": "string", "enum": list(self.choices)}
        for name, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is not None:
                told[name] = bound
        if self.default is not None:
            told["default"] = self.default
        return told


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Something that the API does.

    :param method: the method
    :param path: the path, as OpenAPI has it
    :param name: what it is called
    :param about: what it does
    :param parameters: what may be said
    :param answers: what it answers, by status, as types of shapes; none: no JSON
    :param media: what else it answers with 200
    :param refuses: the statuses of what it refuses
    """

    method: str = "GET"
    path: str
    name: str
    about: str
    parameters: Sequence[Parameter] = ()
    answers: Mapping[int, Sequence[Any]]
    media: Mapping[str, Any] | None = None
    refuses: Sequence[int] = (422,)

    def query(self, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """What a query says.

        :param given: names and texts
        :raises RefusedRequest: if one of them cannot be
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        said: dict[str, Any] = {each.name: each.default for each in self.parameters}
        seen: set[str] = set()
        for name, text in given:
            if name not in known:
                reason = f"{name[:80]!r} is no parameter of {self.path}"
                raise RefusedRequest(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
            if name in seen:
                reason = f"{name} stands there twice"
                raise RefusedRequest(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
            seen.add(name)
            said[name] = known[name].parse(text)
        for parameter in self.parameters:
            if parameter.required and parameter.name not in seen:
                reason = f"say {parameter.name}="
                raise RefusedRequest(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
        return said


def openapi(operations: Sequence[Operation], error: Any, version: str) -> dict[str, Any]:
    """What the API offers, as OpenAPI 3.1 has it.

    :param operations: what it does
    :param error: the type of what is answered to a request that is refused
    :param version: the version of run-task
    """
    answers = [kind for each in operations for kind in each.answers.values()]
    kinds = list(dict.fromkeys(kind for several in (*answers, (error,)) for kind in several))
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    by_kind = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _told(each, by_kind, by_kind[error])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "run-task",
            "version": version,
            "description": "How pipelines do, and what they give. Times in `*_ms` are milliseconds "
            "since the Unix epoch; all others, and lengths, are seconds.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_REFUSALS: Final = {
    400: "The request is none",
    401: "The token is missing or wrong",
    403: "It is refused, whoever asks",
    404: "There is no such thing",
    406: "What would make it is not installed",
    409: "It cannot be done now",
    421: "This is no name of the service",
    422: "A parameter cannot be",
    503: "There is too much to do, or it is not ready",
}


def _told(each: Operation, by_kind: Mapping[Any, Any], error: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in each.answers.items():
        told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        content: dict[str, Any] = {}
        if kind:
            schemas = [by_kind[each] for each in kind]
            schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
            content["application/json"] = {"schema": schema}
        if status == 200 and each.media is not None:
            content |= {media: {"schema": schema} for media, schema in each.media.items()}
        if content:
            told["content"] = content
        responses[str(status)] = told
    for status in dict.fromkeys((400, 401, 403, 421, *each.refuses)):
        if str(status) not in responses:
            responses[str(status)] = {
                "description": _REFUSALS[status],
                "content": {"application/json": {"schema": error}},
            }
    parameters: list[dict[str, Any]] = [
        {
            "name": parameter.name,
            "in": "query",
            "description": parameter.about,
            "required": parameter.required,
            "schema": parameter.schema(),
        }
        for parameter in each.parameters
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", each.path)
    ]
    return {
        "operationId": each.name,
        "summary": each.about,
        "parameters": parameters,
        "responses": responses,
    }
