"""Every error a client or another role can see: a few kinds, one table, one exception.

A kind fixes the Milvus code, the legacy `error_code`, the HTTP status and whether a retry can help (source: Milvus'
merr table and what pymilvus looks at). The message carries fact, value and limit. Raised where it is known, translated
only at a door (`api/`) or carried by name between roles (`wire/`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: kinds with the same codes stay two kinds
class Codes:
    """What one kind means to each door."""

    code: int
    legacy: int
    http: int
    retryable: bool


class Kind(Enum):
    """The kinds of error. The value is what each door makes of it."""

    # state of the service
    UNAVAILABLE = Codes(2, 1, 503, True)
    MEMORY_LIMIT = Codes(3, 1, 503, True)
    INTERNAL = Codes(5, 1, 500, False)
    DISK_LIMIT = Codes(7, 1, 507, False)
    RATE_LIMIT = Codes(8, 49, 429, True)
    UNIMPLEMENTED = Codes(10, 1, 501, False)
    DEADLINE = Codes(2, 1, 504, True)
    METADATA_UNAVAILABLE = Codes(1, 1, 503, True)
    STORAGE_UNAVAILABLE = Codes(1000, 1, 503, True)
    # collections and what belongs to them
    COLLECTION_NOT_FOUND = Codes(100, 4, 404, False)
    COLLECTION_NOT_LOADED = Codes(101, 1, 409, False)
    COLLECTION_LOADED = Codes(104, 1, 409, False)
    ILLEGAL_SCHEMA = Codes(105, 1, 400, False)
    SCHEMA_MISMATCH = Codes(109, 62, 409, False)
    PARTITION_NOT_FOUND = Codes(200, 1, 404, False)
    PARTITION_NOT_LOADED = Codes(201, 1, 409, False)
    CAPACITY_EXCEEDED = Codes(250, 1, 429, False)
    INDEX_NOT_FOUND = Codes(700, 25, 404, False)
    INDEX_NOT_SUPPORTED = Codes(701, 1, 400, False)
    DATABASE_NOT_FOUND = Codes(800, 1, 404, False)
    ALIAS_NOT_FOUND = Codes(1600, 1, 404, False)
    ALIAS_NAME_CONFLICT = Codes(1601, 1, 409, False)
    ALIAS_EXISTS = Codes(1602, 1, 409, False)
    FIELD_NOT_FOUND = Codes(1700, 1, 400, False)
    # requests
    PARAMETER_INVALID = Codes(1100, 5, 400, False)
    PARAMETER_MISSING = Codes(1101, 5, 400, False)
    PARAMETER_TOO_LARGE = Codes(1102, 5, 413, False)
    UNSUPPORTED = Codes(3000, 1, 400, False)
    UNEXPECTED = Codes(65535, 1, 400, False)
    # between roles; a door never shows them (the proxy retries, re-plans or translates)
    NOT_CAUGHT_UP = Codes(2, 1, 503, True)
    GONE = Codes(2, 1, 503, True)
    NOT_LOADED = Codes(2, 1, 503, True)
    NOT_OWNER = Codes(2, 1, 503, True)
    FENCED = Codes(2, 1, 503, True)
    CONFLICT = Codes(2, 1, 503, True)
    LEASE_HELD = Codes(2, 1, 503, True)
    PEER_LOST = Codes(2, 1, 503, True)

    @property
    def codes(self) -> Codes:
        return self.value


class MishardsError(Exception):
    """One failed request. `detail` is for the machine (an owner's name, a version), `message` for the person."""

    def __init__(self, kind: Kind, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.detail = detail

    @property
    def retryable(self) -> bool:
        return self.kind.codes.retryable

    def __repr__(self) -> str:
        return f"MishardsError({self.kind.name}, {self.message!r})"


class SetupError(Exception):
    """The process cannot start: bad setting, port in use, foreign or newer data. One line, exit code 2."""


def collection_not_found(name: str, database: str = "default") -> MishardsError:
    return MishardsError(Kind.COLLECTION_NOT_FOUND, f"collection not found[database={database}][collection={name}]")


def renamed(name: str, database: str) -> MishardsError:
    """COLLECTION_NOT_FOUND of a name that a collection had; the detail is the name."""
    return MishardsError(Kind.COLLECTION_NOT_FOUND, collection_not_found(name, database).message, detail=name)


def invalid(message: str) -> MishardsError:
    """A request's parameter is wrong; the message says which, its value and the limit."""
    return MishardsError(Kind.PARAMETER_INVALID, message)
