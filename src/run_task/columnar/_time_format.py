"""Texts that tell a time in a format of their own, or in the basic format of ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from run_task._extras import need
from run_task.errors import ConfigError
from run_task.observe._format import quoted

_DIGITS: Final = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_BASIC_DATE: Final = re.compile(r"[0-9]{8}", re.ASCII)
_BASIC: Final = (
    r"^([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})([.][0-9]+)?(Z|[+-][0-9:]+)?$"
)


class TimeFormat:
    """A format of times, as :meth:`datetime.datetime.strptime` has it.

    :param text: the format, such as ``"%d/%m/%Y %H:%M:%S"``
    :param where: whose it is, for messages
    :raises ConfigError: if it is none, or tells no date, or time zones by names
    """

    def __init__(self, text: str, where: str) -> None:
        self.text: str = text
        told = f"{where}: format={text!r}"
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] who has no checker
            raise ConfigError(f"{told}: it is a text, as datetime.strptime() takes it")
        try:
            datetime.strptime("", text)  # noqa: DTZ007 it is only tried
        except ValueError as error:
            if "does not match" not in str(error):
                raise ConfigError(f"{told}: {error}") from None
        except (re.error, KeyError, TypeError) as error:
            raise ConfigError(f"{told}: it is none that datetime.strptime() takes") from error
        directives = re.findall("%(.)", text)
        if "Z" in directives:
            raise ConfigError(
                f"{told}: a name of a time zone, as %Z has it, means several: say by zone= which"
            )
        if not {"Y", "y", "G", "c", "x"} & set(directives):
            raise ConfigError(f"{told}: it has no year: a timestamp has a date")
        self._pattern, self._iso = _as_iso(text)

    def parse(self, text: str) -> datetime:
        """The time that a text tells; it has no zone where the format has none.

        :raises ValueError: if it tells none
        """
        try:
            return datetime.strptime(text, self.text)  # noqa: DTZ007 as the format has it
        except ValueError:
            raise ValueError(
                f"{quoted(text)} is not a timestamp of the format {self.text!r}"
            ) from None

    def in_iso(self, texts: Any) -> Any:
        """An Arrow array of texts in ISO 8601, with null for those that have to be parsed one by
        one."""
        pa = need("pyarrow", "arrow")
        pc = need("pyarrow.compute", "arrow")
        if self._pattern is None:
            return pa.nulls(len(texts), pa.string())
        right = pc.match_substring_regex(texts, self._pattern)
        iso = pc.replace_substring_regex(texts, self._pattern, self._iso)
        return pc.if_else(right, iso, pa.scalar(None, texts.type))


def _as_iso(text: str) -> tuple[str | None, str]:
    """What finds the parts of a time in a format, and what puts them together in ISO 8601; None
    where the format has others than digits of a fixed number."""
    pattern = ""
    groups: dict[str, str] = {}
    for literal, directive in re.findall("([^%]+)|%(.)", text):
        if literal or directive == "%":
            pattern += re.escape(literal or "%").replace(r"\ ", " ")
            continue
        if directive in groups:
            return None, ""
        groups[directive] = rf"\{len(groups) + 1}"
        if directive == "f":
            pattern += "([0-9]{1,6})"
        elif directive in _DIGITS:
            pattern += f"([0-9]{{{_DIGITS[directive]}}})"
        elif directive == "z":
            pattern += "(Z|[+-][0-9]{2}:?[0-9]{2})"
        else:
            return None, ""
    if not {"Y", "m", "d"} <= groups.keys() or len(groups) > 9 or not text.isascii():
        return None, ""
    hour, minute, second = (groups.get(part, "00") for part in "HMS")
    iso = rf"{groups['Y']}-{groups['m']}-{groups['d']} {hour}:{minute}:{second}"
    iso += f".{groups['f']}" if "f" in groups else ""
    return f"^{pattern}$", iso + groups.get("z", "")


def are_dates(texts: Iterable[object]) -> bool:
    """Whether texts are dates as ``20240131``, and no counts of eight digits: all of them are dates
    of the years 1900 to 2099, and there is one. A series of counts soon has one that is none."""
    some = False
    for value in texts:
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if not isinstance(text, str) or not text.strip():
            continue
        some = True
        text = text.strip()
        if not _BASIC_DATE.fullmatch(text) or not "1900" <= text[:4] < "2100":
            return False
        try:
            datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 it is only tried
        except ValueError:
            return False
    return some


def extended_date(text: str) -> str:
    """A date as ``20240131`` as ``2024-01-31``; other texts as they are."""
    if _BASIC_DATE.fullmatch(text):
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def extended(texts: Any, dates: bool) -> Any:
    """An Arrow array of texts, those in the basic format in the extended one.

    :param dates: whether eight digits are a date
    """
    pc = need("pyarrow.compute", "arrow")
    texts = pc.replace_substring_regex(texts, _BASIC, r"\1-\2-\3T\4:\5:\6\7\8")
    if dates:
        texts = pc.replace_substring_regex(texts, "^([0-9]{4})([0-9]{2})([0-9]{2})$", r"\1-\2-\3")
    return texts
