"""Pipelines as a service: the page, the API, health and metrics."""

from run_task._extras import need as _need
from run_task._public import present as _present

for _module in ("msgspec", "starlette", "uvicorn", "websockets"):
    _need(_module, "serve")

from run_task.serve._service import Service  # noqa: E402  what it needs is there

__all__ = ["Service"]

_present(globals())
