"""Where a message goes: a text with fields, of which each result makes its subject or topic."""

from __future__ import annotations

import string
from typing import Final
from urllib.parse import quote

from run_task.errors import ConfigError, SinkError

_FIELDS: Final = ("pipeline", "stage", "key")

_NO_KEY: Final = "_"


class PlaceTemplate:
    """A subject or topic with the fields ``{pipeline}``, ``{stage}`` and ``{key}``.

    What a field has is one level of it: a character that means something there, such as what is
    between levels, is written as in a URL, as ``%2E``. Where a message has no key, or an empty one,
    ``{key}`` is ``_``.

    :param where: whose it is, for errors
    :param argument: what it is called there
    :param text: the text, as ``"bars.{key}"``
    :param between: what is between two levels
    :param wildcards: characters that stand for other levels
    :param longest: how many bytes it may have
    :raises ConfigError: if it has other fields, or what it makes cannot be
    """

    def __init__(
        self, where: str, argument: str, text: object, between: str, wildcards: str, longest: int
    ) -> None:
        self._where, self._between, self._longest = where, between, longest
        self._special = frozenset(between + wildcards + "$%")
        if type(text) is not str or not text:
            raise ConfigError(
                f"{where}: {argument}={text!r}: it is a text, as 'bars{between}{{key}}'"
            )
        try:
            parts = [*string.Formatter().parse(text)]
        except ValueError as error:
            raise ConfigError(f"{where}: {argument}: {error}") from None
        for literal, field, form, conversion in parts:
            if field is not None and (field not in _FIELDS or form or conversion):
                shown = " ".join(f"{{{name}}}" for name in _FIELDS)
                raise ConfigError(
                    f"{where}: {argument}: it has {{{field}}}: its fields are {shown}"
                )
            if set(literal) & set(wildcards) or not literal.isprintable():
                raise ConfigError(
                    f"{where}: {argument}: {literal!r} cannot be in it: messages go to one place, "
                    f"without {' '.join(map(repr, wildcards))}"
                )
        self._text = text
        made = self.of(("p", "s"))
        if between == "." and "" in made.split(between):
            raise ConfigError(
                f"{where}: {argument}: there is nothing before or behind one of its dots"
            )

    def of(self, path: tuple[str, ...]) -> str:
        """What a message's place is.

        :param path: pipeline, stage and, if there is one, the key
        :raises SinkError: if it is too long
        """
        pipeline, stage, *key = map(self._level, path)
        made = self._text.format(pipeline=pipeline, stage=stage, key=key[0] if key else _NO_KEY)
        if len(made.encode()) > self._longest:
            raise SinkError(f"{self._where}: {made!r:.100} is longer than {self._longest:,} bytes")
        return made

    def _level(self, text: str) -> str:
        return "".join(map(self._written, text)) or _NO_KEY

    def _written(self, character: str) -> str:
        if character not in self._special and character.isprintable():
            return character
        if character == ".":  # which URLs leave as it is
            return "%2E"
        return quote(character, safe="", errors="surrogatepass")
