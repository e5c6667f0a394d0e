"""Data that changes while tasks read it."""

from run_task.shared.protocol import Access, Relocatable, Shared, Versioned
from run_task.shared.rwlock import RwLock

__all__ = ["Access", "Relocatable", "RwLock", "Shared", "Versioned"]
