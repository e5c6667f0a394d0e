"""What makes files last, and keeps a second writer away from them."""

from __future__ import annotations

import os
from pathlib import Path

from run_task.errors import ConfigError

try:
    import fcntl
except ImportError:  # on Windows: there, a second writer is not noticed
    fcntl = None  # type: ignore[assignment]  # typeshed has it as a module


def lock(descriptor: int, where: str) -> None:
    """Keep an open file to ourselves until it is closed, or the process ends in whatever way.

    :raises ConfigError: if somebody else has it
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{where}: another sink is writing there: close it first, or take another path"
        ) from error


def replace(temporary: Path, path: Path) -> None:
    """Put a file that is complete and synced in the place of another, also if power fails."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
