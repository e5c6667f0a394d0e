"""What is not plain JSON: an object of one key, which begins with a dollar and tells the type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""What JSON has: None, bools, numbers, texts, and lists and dicts of these."""

Types: TypeAlias = Mapping[str, type]
"""Classes of the reader's, by the names under which they are stored."""

Inward: TypeAlias = Callable[[Any], Any]
"""Takes the part of a value that is within it: to its tree, or back."""


class UnencodableError(Exception):
    """Why a value has no form as JSON, and what to do."""


class UndecodableError(Exception):
    """Why a stored form does not become a value, and what to do."""


@dataclass(frozen=True, slots=True)
class Form:
    """How values of a type are stored, under a tag.

    :param tag: the key of the object, with its dollar
    :param encode: makes what stands under the tag, given the value and a way to encode what is
        within it
    :param decode: makes the value of it again, given a way to decode what is within it, and the
        reader's types; it may raise anything if what it is given is of no such form
    """

    tag: str
    encode: Callable[[Any, Inward], Tree]
    decode: Callable[[Tree, Inward, Types], Any]
