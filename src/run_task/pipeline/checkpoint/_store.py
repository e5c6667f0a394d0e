"""What keeps checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class CheckpointStore(Protocol):
    """Keeps the checkpoints of one pipeline: each a short text that refers to *parts*, which
    several have in common. :class:`FolderStore` and :class:`SqlStore` are two.

    What the bytes mean is the library's affair; it also sees to checksums, and asks for an earlier
    checkpoint where a later one is damaged. All methods are called by one thread at a time.
    """

    def begin(self, pipeline: str, /) -> None:
        """Get ready to load and save, for nobody else from now on. Called first, once a run.

        :param pipeline: the pipeline's name
        :raises ConfigError: if somebody else has it, or it holds no checkpoints of this pipeline
        """
        ...

    def numbers(self) -> Sequence[int]:
        """The numbers of the checkpoints that are there, in ascending order."""
        ...

    def load(self, number: int, /) -> bytes:
        """The text of a checkpoint.

        :raises OSError: if it cannot be read
        """
        ...

    def part(self, name: str, /) -> bytes:
        """A part.

        :param name: as it was saved
        :raises OSError: if it cannot be read
        """
        ...

    def save(self, number: int, text: bytes, parts: Mapping[str, bytes], /) -> None:
        """Make a checkpoint last, also if power fails: first its parts, and then its text, so that
        one whose text is there is whole.

        :param number: its number, which is greater than those of all that are there
        :param text: its text
        :param parts: the parts that no checkpoint has referred to yet, by names of letters, digits
            and hyphens
        :raises Exception: if it cannot be done; then the checkpoints before are as they were
        """
        ...

    def keep(self, numbers: Collection[int], parts: Collection[str], /) -> None:
        """Let go of all but these checkpoints and parts. What it has not saved itself it leaves.

        :param numbers: the checkpoints
        :param parts: the parts
        """
        ...

    def close(self) -> None:
        """Let others have it. It may be called again, and then does nothing."""
        ...
