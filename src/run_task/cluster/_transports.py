"""Where shards run, by the address that a user gives."""

from __future__ import annotations

import re
from typing import Final

from run_task.cluster._link import Transport
from run_task.cluster._processes import ProcessTransport
from run_task.errors import ConfigError

_ADDRESS: Final = re.compile(r"auto|local|(ray://)?[^/\s]+:\d+(/\S*)?|(?!ray:)\w+://\S+")
"""What Ray takes for an address; those with another scheme are of its add-ons."""


def on_other_machines(address: str | None) -> bool:
    """Whether shards may be on other machines than this process.

    :param address: as of :func:`transport_for`
    """
    return address not in (None, "local")


def transport_for(address: str | None) -> Transport:
    """What starts shards there.

    :param address: of a cluster of Ray, as :meth:`Pipeline.run_sharded` takes it; None: processes
        of this machine
    :raises ConfigError: if it is none, or Ray is not installed
    """
    if address is None:
        return ProcessTransport()
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):  # pyright: ignore[reportUnnecessaryIsInstance] the caller may have no type checker
        raise ConfigError(
            f"address={address!r}: it is that of a cluster of Ray, 'auto', 'local', 'host:6379' or "
            f"'ray://host:10001', or None for processes of this machine"
        )
    # With Ray, which others can do without.
    from run_task.cluster._ray import RayTransport

    return RayTransport(address)
