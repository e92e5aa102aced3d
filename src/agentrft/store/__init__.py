"""Durable records: jobs, events, metrics, checkpoints and episodes in SQL; file contents by their hash beside it."""

from agentrft.home import home
from agentrft.store.artifacts import Artifacts
from agentrft.store.connect import open_store, sqlite_driver
from agentrft.store.sql_store import SqlStore

__all__ = ["Artifacts", "SqlStore", "home", "open_store", "sqlite_driver"]
