"""Every setting: its default, its unit, its meaning; and where its value comes from.

Defaults < file (TOML) < `MISHARDS_*` environment < flags, merged by `load`. Sections mirror the roles: `reader.threads`
is `threads` in `[reader]` of the file and `MISHARDS_READER_THREADS` in the environment. Unknown names are refused.
Nothing else in the package reads the environment.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mishards.errors import SetupError
from mishards.model import ROLES, Role

MIB = 1 << 20
GIB = 1 << 30

PREFIX = "MISHARDS_"  # of our environment variables

_ROLE = "|".join(ROLES)
_SECONDS_MAX = 366 * 24 * 3600.0

# What a setting may be. The description completes "expected ..." in the message that refuses a value.
Roles = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(all|({_ROLE})(,({_ROLE}))*)$", description=f"'all' or a comma-separated list of {', '.join(ROLES)}"
    ),
]
Url = Annotated[str, msgspec.Meta(pattern=r"^([a-z][a-z0-9+.-]*://.*)?$", description="a URL such as scheme://place")]
Text = Annotated[str, msgspec.Meta(description="a text")]
Name = Annotated[str, msgspec.Meta(min_length=1, description="a text that is not empty")]
NodeName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9._-]{0,64}$", description="at most 64 letters, digits, dots, dashes and underscores"
    ),
]
Level = Annotated[
    str, msgspec.Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a port, 0 to 65535")]
Count = Annotated[int, msgspec.Meta(ge=1, description="a whole number, at least 1")]
Threads = Annotated[int, msgspec.Meta(ge=0, description="a whole number; 0 means one per core")]
CountOrNone = Annotated[int, msgspec.Meta(ge=0, description="a whole number; 0: none")]
Bytes = Annotated[int, msgspec.Meta(ge=1, description="a size in bytes, at least 1, such as 4096 or 512MiB")]
BytesOrNone = Annotated[int, msgspec.Meta(ge=0, description="a size in bytes such as 4096 or 64KiB, or 0")]
Seconds = Annotated[
    float, msgspec.Meta(gt=0, le=_SECONDS_MAX, description="a time in seconds above 0, such as 2.5 or 500ms")
]
SecondsOrNone = Annotated[
    float, msgspec.Meta(ge=0, le=_SECONDS_MAX, description="a time in seconds such as 2.5 or 500ms, or 0")
]
Share = Annotated[float, msgspec.Meta(ge=0, le=1, description="a share, 0 to 1")]


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request_bytes_max: Bytes = 64 * MIB  # of one gRPC request (P15)
    in_flight_max: Count = 1024  # searches and queries at once; more are refused with RATE_LIMIT
    result_bytes_direct: BytesOrNone = 256 * 1024  # larger results fetch their output fields in a second step
    result_bytes_max: Bytes = 128 * MIB  # of the rows of one result; a larger one is refused (P15)
    retry_share: Share = 0.10  # retried parts / parts (P17)
    hedge_share: Share = 0.05  # parts asked of a second replica because the first is slow / parts (P17)
    bounded_staleness_s: Seconds = 5.0  # Bounded consistency's bound (P10)
    switch_wait_s: SecondsOrNone = 30.0  # new segments that are not ready after it are used all the same (P11)


class ReaderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    memory_bytes_max: Bytes = 4 * GIB  # indexes and copies held in memory
    cache_bytes_max: Bytes = 64 * GIB  # local disk cache
    threads: Threads = 0  # searching; 0: one per core
    concurrent_loads_max: Count = 4
    in_flight_max: Count = 1024


class WriterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    lease_s: Seconds = 5.0  # a crashed writer's shards are free after it (P2)
    inline_bytes_max: BytesOrNone = 64 * 1024  # fresh files up to it lie in the metadata service (P3)
    queue_bytes_max: Bytes = 256 * MIB  # requests that wait for a commit, all collections
    group_bytes_max: Bytes = 64 * MIB  # of one commit
    seal_bytes: Bytes = 256 * MIB  # fresh rows of a shard are sealed at it (a bulk load makes few segments) ...
    seal_files: Count = 64  # ... or at that many fresh files ...
    seal_values: Count = 2 << 20  # ... or at that many numbers in vectors (a search scans them in 0.2 ms) ...
    seal_age_s: Seconds = 60.0  # ... or when the oldest is that old
    fresh_bytes_max: Bytes = 512 * MIB  # of a shard; at 80 % writes slow down, at 100 % they are refused (P15) ...
    fresh_files_max: Count = 1_000  # ... as at so many files of fresh rows ...
    tombstones_max: Count = 10_000_000  # ... rows of live tombstones (each reader holds some 24 bytes of each) ...
    segments_max: Count = 10_000  # ... or segments, of a shard


class BuilderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    segment_bytes: Bytes = 512 * MIB  # target size of a segment's rows
    merge_files: Annotated[int, msgspec.Meta(ge=2, description="a whole number, at least 2")] = (
        4  # segments of one size tier that are merged together
    )
    dead_share: Share = 0.20  # of a segment's rows; more and it is rewritten
    tombstones_max: Count = 100_000  # rows of live tombstones in a shard; more and they are materialised
    threads: Threads = 0  # building; 0: one per core
    processes: CountOrNone = 2  # that merge and build indexes at low priority; 0: threads of this one do
    rest_values: Count = 4 << 20  # a segment of so many numbers in vectors is indexed when nothing is written for 2 s
    interval_s: Seconds = 1.0
    task_lease_s: Seconds = 30.0
    garbage_grace_s: SecondsOrNone = 300.0  # a removed file that nobody uses is deleted that long after (P12)
    orphan_quarantine_s: SecondsOrNone = 86_400.0  # an upload that no commit can list is deleted after it (P12)
    echo_s: Seconds = 5.0  # the metadata of what changed is written to storage so often, for `metadata rebuild` (P14)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process."""

    roles: Roles = "all"  # or a comma-separated list of proxy, reader, writer, builder
    data: Name = "./mishards-data"
    host: Name = "127.0.0.1"
    port: Port = 19530  # the Milvus door
    http_port: Port = 9091  # health and metrics; 0: any free port
    wire_port: Port = 0  # between nodes; 0: any free port
    metadata: Url = ""  # URL; "": sqlite:///{data}/metadata.db
    storage: Url = ""  # URL; "": file://{data}/storage
    discovery: Url = ""  # URL; "": metadata:// (through the metadata service)
    router: Name = "capped"
    node_id: NodeName = ""  # "": kept in {data}, or drawn at start
    log_level: Level = "info"
    member_timeout_s: Seconds = 30.0  # a silent node leaves the placement after it (P16)
    beat_s: Seconds = 1.0  # heartbeat to discovery
    poll_s: Seconds = 1.0  # slow poll of the metadata service (P9)
    drain_s: SecondsOrNone = 3.0  # a stopping node serves that long while others take over
    proxy: ProxySettings = ProxySettings()
    reader: ReaderSettings = ReaderSettings()
    writer: WriterSettings = WriterSettings()
    builder: BuilderSettings = BuilderSettings()


class Loaded(msgspec.Struct, frozen=True):
    """The settings and, by dotted key, where each came from: "default", "file mishards.toml",
    "environment MISHARDS_READER_THREADS" or "flag --port"."""

    settings: Settings
    origins: dict[str, str]


# ----------------------------------------------------------------------------------------------- what follows from them


def roles(settings: Settings) -> tuple[Role, ...]:
    """The roles of this process, each once, in the order of `ROLES`."""
    if settings.roles == "all":
        return ROLES
    wanted = settings.roles.split(",")
    return tuple(role for role in ROLES if role in wanted)


def data_dir(settings: Settings) -> Path:
    """The data directory, absolute."""
    return Path(settings.data).expanduser().absolute()


def metadata_url(settings: Settings) -> str:
    return settings.metadata or f"sqlite:///{data_dir(settings)}/metadata.db"


def storage_url(settings: Settings) -> str:
    return settings.storage or f"file://{data_dir(settings)}/storage"


def discovery_url(settings: Settings) -> str:
    return settings.discovery or "metadata://"


def values(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, in the order of declaration."""
    found: dict[str, Any] = {}
    for key in types():
        section, _, name = key.rpartition(".")
        found[key] = getattr(getattr(settings, section) if section else settings, name)
    return found


def masked(text: str) -> str:
    """The text without the password of a URL (rather too much than too little) or a secret-looking parameter."""
    text = re.sub(r"(://[^:/@]*:).*@", r"\1***@", text)
    return re.sub(r"(?i)([?&][^=&]*(?:secret|password|token|key)[^=&]*=)[^&]*", r"\1***", text)


# -------------------------------------------------------------------------------------------------------------- loading


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Loaded:
    """The settings of this process.

    `file`: TOML; None: the one that `MISHARDS_CONFIG` names, if it does. `environment`: the process' own. `flags`: by
    dotted key, None where not given. SetupError: which setting, its value, what is expected, where it came from.
    """
    if file is None and environment.get("MISHARDS_CONFIG"):
        file = Path(environment["MISHARDS_CONFIG"])
    known = types()
    chosen: dict[str, Any] = {}
    origins = dict.fromkeys(known, "default")
    for key, value, origin in (*_from_file(file), *_from_environment(environment), *_from_flags(flags)):
        if key not in known:
            raise SetupError(_unknown(key, origin, known))
        chosen[key] = _checked(key, value, origin, known[key])
        origins[key] = origin
    settings = msgspec.convert(_nested(chosen), Settings)
    _check_together(settings)
    return Loaded(settings, origins)


def types(struct: type[msgspec.Struct] = Settings, prefix: str = "") -> dict[str, Any]:
    """The type of every setting by its dotted key, in the order of declaration."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= types(field.type, f"{field.name}.")
        else:
            found[prefix + field.name] = field.type
    return found


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + key.replace(".", "_").upper()


def flag(key: str) -> str:
    """The flag of a setting."""
    return "--role" if key == "roles" else "--" + key.replace("_", "-")


def _from_file(file: Path | None) -> Iterator[tuple[str, Any, str]]:
    if file is None:
        return
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"cannot read the configuration file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"the configuration file {file} is not valid TOML: {error}") from error
    for key, value in document.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", inner, f"file {file.name}") for name, inner in value.items())
        else:
            yield key, value, f"file {file.name}"


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    keys = {variable(key): key for key in types()}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name.startswith(("MISHARDS_BENCH_", "MISHARDS_TEST_")):
            continue
        if name in keys:
            yield keys[name], environment[name], f"environment {name}"
        elif name != "MISHARDS_CONFIG":
            raise SetupError(f"unknown environment variable {name}{_nearest(name, keys, PREFIX)}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    return ((key, value, f"flag {flag(key)}") for key, value in flags.items() if value is not None)


def _nested(chosen: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in chosen.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


# ------------------------------------------------------------------------------------------------------------- checking

_UNITS: Mapping[Any, Mapping[str, float]] = {
    int: {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
    | {"kib": 1 << 10, "mib": MIB, "gib": GIB, "tib": GIB << 10},
    float: {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600},
}


def _checked(key: str, value: Any, origin: str, kind: Any) -> Any:
    try:
        return msgspec.convert(_parsed(value, kind) if isinstance(value, str) else value, kind)
    except msgspec.ValidationError:
        expected = kind.__metadata__[0].description
        shown = masked(value) if isinstance(value, str) else value
        raise SetupError(f"{key} = {shown!r} ({origin}): expected {expected}") from None


def _parsed(text: str, kind: Any) -> Any:
    """The number that a text stands for, units included; the text itself where it is none or none is wanted."""
    number, bounds = kind.__origin__, kind.__metadata__[0]
    if number is str:
        return text
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", text.strip())
    units = _UNITS[number] if "such as" in bounds.description else {"": 1}
    if match is None or match[2].lower() not in units:
        return text
    amount = float(match[1]) * units[match[2].lower()]
    if number is float:
        return amount
    return int(amount) if amount.is_integer() else text


def _check_together(settings: Settings) -> None:
    timeout_s, beat_s = settings.member_timeout_s, settings.beat_s
    if timeout_s < 2 * beat_s:
        raise SetupError(f"member_timeout_s = {timeout_s:g} is less than two heartbeats (beat_s = {beat_s:g})")
    seal, most = settings.writer.seal_bytes, settings.writer.fresh_bytes_max
    if seal > most:
        raise SetupError(f"writer.seal_bytes = {seal} is more than writer.fresh_bytes_max = {most}")
    if settings.builder.tombstones_max > settings.writer.tombstones_max:
        few, many = settings.writer.tombstones_max, settings.builder.tombstones_max
        raise SetupError(f"writer.tombstones_max = {few} is less than builder.tombstones_max = {many}")


def _unknown(key: str, origin: str, known: Mapping[str, Any]) -> str:
    if any(name.startswith(f"{key}.") for name in known):
        return f"'{key}' is a section, not a setting ({origin})"
    return f"unknown setting '{key}' ({origin}){_nearest(key, known)}"


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say about an unknown name, all of which begin with `prefix`."""
    rests = [other.removeprefix(prefix) for other in known]
    nearest = difflib.get_close_matches(name.removeprefix(prefix), rests, n=1, cutoff=0.5)
    return f"; the nearest is {prefix}{nearest[0]}" if nearest else "; `mishards config show` lists all"
