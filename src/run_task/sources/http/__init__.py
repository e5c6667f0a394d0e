"""Rows that come by HTTP."""

from run_task.sources.http._ingest import Confirm, HttpIngest

__all__ = ["Confirm", "HttpIngest"]
