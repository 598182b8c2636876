"""The rules of names and Milvus' words when one is broken."""

from __future__ import annotations

import re

from mishards.errors import MishardsError, invalid
from mishards.schema.limits import NAME_LENGTH_MAX

_FIRST = re.compile(r"[A-Za-z_]")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_SNAPSHOT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_collection_name(name: str) -> None:
    _check("collection name", name)


def check_alias_name(name: str) -> None:
    _check("collection alias", name)


def check_partition_name(name: str) -> None:
    _check("partition name", name)


def check_field_name(name: str) -> None:
    _check("field name", name)


def check_index_name(name: str) -> None:
    _check("index name", name)


def check_snapshot_name(name: str) -> None:
    """Dots and dashes too, for dates."""
    if not name or len(name) > NAME_LENGTH_MAX:
        raise invalid(f"a snapshot's name has 1 to {NAME_LENGTH_MAX} characters, got {len(name)}")
    if not _SNAPSHOT.fullmatch(name):
        rule = "it can only contain numbers, letters, underscores, dots and dashes, not begin with a dot or dash"
        raise _refused("snapshot name", name, rule)


def _check(what: str, name: str) -> None:
    """Refuse a name that is not `[A-Za-z_][A-Za-z0-9_]*` of at most 255 characters."""
    if not name:
        raise invalid(f"{what} should not be empty: invalid parameter")
    if len(name) > NAME_LENGTH_MAX:
        raise _refused(
            what, name, f"the length of a {what} must be at most {NAME_LENGTH_MAX} characters, got {len(name)}"
        )
    if not _FIRST.match(name):
        raise _refused(what, name, f"the first character of a {what} must be an underscore or letter")
    if not _NAME.fullmatch(name):
        raise _refused(what, name, f"{what} can only contain numbers, letters and underscores")


def _refused(what: str, name: str, rule: str) -> MishardsError:
    return invalid(f"Invalid {what}: {name}. {rule}: invalid parameter")
