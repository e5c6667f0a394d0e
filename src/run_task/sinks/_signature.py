"""Signatures of messages, as Standard Webhooks 1.0 has them (https://www.standardwebhooks.com).

What is signed is ``id.timestamp.body``, by HMAC-SHA256 (RFC 2104), so that a receiver knows who
sent it, that it was not changed, and that it is not an old one again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path
from typing import Any, Final

from run_task.errors import ConfigError

_PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64
"""How many bytes a secret has."""

_CURE: Final = (
    "it is whsec_ and then 24 to 64 random bytes in base64, as a text or in a file that a Path "
    "names; make one by: python -c \"import base64, secrets; print('whsec_' + "
    'base64.b64encode(secrets.token_bytes(32)).decode())"'
)


class Signer:
    """Signs messages.

    :param given: the secret, as Standard Webhooks has it, or the path of a file that holds it
    :param where: whose it is, for messages
    :raises ConfigError: if it is none, or cannot be read; the message does not show it
    """

    def __init__(self, given: Any, where: str) -> None:
        text = given
        if isinstance(given, Path):
            try:
                text = given.read_text(encoding="ascii")
            except (OSError, UnicodeError) as error:
                kind = type(error).__name__
                raise ConfigError(f"{where}: secret={given}: it cannot be read: {kind}") from None
        if not isinstance(text, str):
            raise ConfigError(f"{where}: secret= is a {type(text).__name__}: {_CURE}")
        encoded = text.strip()
        try:
            if not encoded.startswith(_PREFIX):
                raise ValueError
            self._key = base64.b64decode(encoded.removeprefix(_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            raise ConfigError(f"{where}: secret= is none: {_CURE}") from None
        if not _SHORTEST <= len(self._key) <= _LONGEST:
            raise ConfigError(f"{where}: secret= has {len(self._key)} bytes: {_CURE}")

    def sign(self, identity: str, timestamp: int, body: bytes) -> str:
        """The signature of a message.

        :param identity: its id
        :param timestamp: when it is sent, in seconds since the Unix epoch
        """
        signed = f"{identity}.{timestamp}.".encode() + body
        digest = hmac.new(self._key, signed, hashlib.sha256).digest()
        return f"v1,{base64.b64encode(digest).decode()}"

    def __repr__(self) -> str:
        return "Signer(...)"
