"""Errors that a user of Thalweg may see.

Bad *data* is a value (:class:`thalweg.engine.batch.Reject`), never an exception.
"""


class ThalwegError(Exception):
    """Base class of every error that Thalweg raises on purpose."""


class DefinitionError(ThalwegError, ValueError):
    """A stream, feature, label, model or pipeline is defined wrongly; the message says what to write."""


class SnapshotError(ThalwegError):
    """A snapshot is not ours, is damaged, or was written by another version."""


class OrderError(ThalwegError):
    """A log was handed over in another order than its offsets; the shard stops."""
