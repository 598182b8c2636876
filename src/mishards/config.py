"""Every setting: its default, its unit, its meaning. Defaults < file < `MISHARDS_*` environment < flags (see `load`).

Sections mirror the roles. Nothing else in the package reads the environment.
"""

from __future__ import annotations

import msgspec

MIB = 1 << 20
GIB = 1 << 30


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    request_bytes_max: int = 64 * MIB  # of one gRPC request (P15)
    in_flight_max: int = 1024  # searches and queries at once; more are refused with RATE_LIMIT
    result_bytes_direct: int = 256 * 1024  # larger results fetch their output fields in a second step
    retry_share: float = 0.10  # retried parts / parts (P17)
    bounded_staleness_s: float = 5.0  # Bounded consistency's bound (P10)
    switch_wait_s: float = 30.0  # new segments that are not ready after it are used all the same (P11)


class ReaderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    memory_bytes_max: int = 4 * GIB  # indexes and copies held in memory
    cache_bytes_max: int = 64 * GIB  # local disk cache
    threads: int = 0  # searching; 0: one per core
    concurrent_loads_max: int = 4
    in_flight_max: int = 1024


class WriterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    lease_s: float = 10.0  # a crashed writer's shards are free after it (P2)
    inline_bytes_max: int = 64 * 1024  # fresh files up to it lie in the metadata service (P3)
    queue_bytes_max: int = 256 * MIB  # requests that wait for a commit, all collections
    group_bytes_max: int = 64 * MIB  # of one commit
    seal_bytes: int = 64 * MIB  # fresh rows of a shard are sealed at it ...
    seal_files: int = 64  # ... or at that many fresh files ...
    seal_age_s: float = 60.0  # ... or when the oldest is that old
    fresh_bytes_max: int = 512 * MIB  # of a shard; at 80 % writes slow down, at 100 % they are refused (P15)


class BuilderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    segment_bytes: int = 512 * MIB  # target size of a segment's vectors
    merge_files: int = 4  # segments of one size tier that are merged together
    dead_share: float = 0.20  # of a segment's rows; more and it is rewritten
    tombstones_max: int = 100_000  # rows of live tombstones in a shard; more and they are materialised
    threads: int = 0  # building; 0: one per core
    interval_s: float = 1.0
    task_lease_s: float = 30.0
    garbage_grace_s: float = 300.0  # a removed file is deleted that long after (P12)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process."""

    roles: str = "all"  # or a comma-separated list of proxy, reader, writer, builder
    data: str = "./mishards-data"
    host: str = "127.0.0.1"
    port: int = 19530  # the Milvus door
    http_port: int = 9091  # health; 0: any free port
    wire_port: int = 0  # between nodes; 0: any free port
    metadata: str = ""  # URL; "": sqlite:///{data}/metadata.db
    storage: str = ""  # URL; "": file://{data}/storage
    discovery: str = ""  # URL; "": metadata:// (through the metadata service)
    router: str = "capped"
    node_id: str = ""  # "": kept in {data}, or drawn at start
    log_level: str = "info"
    member_timeout_s: float = 30.0  # a silent node leaves the placement after it (P16)
    beat_s: float = 1.0  # heartbeat to discovery
    poll_s: float = 1.0  # slow poll of the metadata service (P9)
    drain_s: float = 3.0  # a stopping node serves that long while others take over
    proxy: ProxySettings = ProxySettings()
    reader: ReaderSettings = ReaderSettings()
    writer: WriterSettings = WriterSettings()
    builder: BuilderSettings = BuilderSettings()
