"""Data that changes while tasks read it."""

from run_task.shared.protocol import Access, Shared
from run_task.shared.rwlock import RwLock

__all__ = ["Access", "RwLock", "Shared"]
