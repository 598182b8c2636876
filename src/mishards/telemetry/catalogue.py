"""Every metric that there is. docs/monitoring.md says what to make of them; a test compares the two."""

from __future__ import annotations

from mishards.telemetry.metrics import Metric


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"mishards_{name}", "gauge", help, labels)


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"mishards_{name}_total", "counter", help, labels)


_COLLECTION = ("database", "collection")
_SHARD = (*_COLLECTION, "shard")

# ------------------------------------------------------------------------------------------------------- every process

INFO = _gauge("node_info", "1 for each role of this process.", "node", "role", "version")
UPTIME = _gauge("uptime_seconds", "Since this process began to start.")
COLLECTIONS = _gauge("collections", "Collections that this process knows.")
MEMBERS = _gauge("members", "Processes that this one sees, by role.", "role")
METADATA_UP = _gauge("metadata_up", "1 if the metadata service answered when it was last asked, else 0.")
METADATA_AGE = _gauge("metadata_age_seconds", "Since the view of the metadata was last known to be the newest.")
FORKS = _counter("metadata_forks", "Collections read anew because the metadata service had lost commits of theirs.")
PUSH_GAPS = _counter("push_gaps", "Pushes that did not continue what this process knew, so that it asked.")

# -------------------------------------------------------------------------------------------------------------- proxy

PROXY_IN_FLIGHT = _gauge("proxy_in_flight_requests", "Requests of clients under way.")
PROXY_IN_FLIGHT_LIMIT = _gauge("proxy_in_flight_limit_requests", "proxy.in_flight_max")

# ------------------------------------------------------------------------------------------------------------- reader

READER_IN_FLIGHT = _gauge("reader_in_flight_requests", "Parts of searches and queries under way.")
READER_IN_FLIGHT_LIMIT = _gauge("reader_in_flight_limit_requests", "reader.in_flight_max")
READER_MEMORY = _gauge("reader_memory_bytes", "Indexes, fresh rows and copies held in memory.")
READER_MEMORY_LIMIT = _gauge("reader_memory_limit_bytes", "reader.memory_bytes_max")
READER_SEGMENTS = _gauge("reader_segments", "Segments held.")
READER_LAG = _gauge(
    "reader_lag_versions", "Commits that this process knows of and has not applied to what it holds.", *_COLLECTION
)
READER_MISSING = _counter("reader_missing_files", "Loads of live files that storage does not have: must stay 0.")

# ------------------------------------------------------------------------------------------------------------- writer

SHARDS_OWNED = _gauge("writer_shards", "Shards whose lease this writer holds.")
SHARDS_LEAVING = _gauge("writer_leaving_shards", "Shards that are being handed over.")
QUEUE = _gauge("writer_queue_bytes", "Requests that wait for a commit.")
QUEUE_LIMIT = _gauge("writer_queue_limit_bytes", "writer.queue_bytes_max")
FRESH_BYTES = _gauge("shard_fresh_bytes", "Rows of the shard that are in no segment yet.", *_SHARD)
FRESH_FILES = _gauge("shard_fresh_files", "Files of these rows.", *_SHARD)
TOMBSTONES = _gauge("shard_tombstone_rows", "Deletes of the shard that are not applied to all segments yet.", *_SHARD)
SEGMENTS = _gauge("shard_segments", "Segments of the shard.", *_SHARD)
FULLNESS = _gauge(
    "shard_fullness_ratio", "How near the shard is to one of its bounds: from 0.8 writes wait, at 1 they fail.", *_SHARD
)
FRESH_BYTES_LIMIT = _gauge("shard_fresh_limit_bytes", "writer.fresh_bytes_max")
FRESH_FILES_LIMIT = _gauge("shard_fresh_limit_files", "writer.fresh_files_max")
TOMBSTONES_LIMIT = _gauge("shard_tombstone_limit_rows", "writer.tombstones_max")
SEGMENTS_LIMIT = _gauge("shard_limit_segments", "writer.segments_max")
COMMITS = _counter("writer_commits", "Commits of this writer: of writes, or of the segments that it sealed.", "kind")
COMMITS_REFUSED = _counter("writer_commits_refused", "Commits that the metadata service refused.", "reason")
COMMITS_UNANSWERED = _counter(
    "writer_commits_unanswered", "Commits whose answer was lost, by what was found out about them.", "outcome"
)
COMMITS_PUT_BACK = _counter("writer_commits_put_back", "Commits made again that the metadata service had lost.")
COMMITS_LOST = _counter("writer_commits_lost", "Acknowledged commits that are lost for good: must stay 0.")

# ------------------------------------------------------------------------------------------------------------ builder

TASKS_RUNNING = _gauge("builder_running_tasks", "Merges, index builds and the like under way.")
TASKS = _counter(
    "builder_tasks", "Tasks that ended: done, overtaken by somebody else's commit, or failed.", "kind", "outcome"
)
COLLECTED = _counter("builder_collected", "What garbage collection has deleted.", "what")
QUARANTINED = _gauge("builder_quarantined_objects", "Uploads that nothing can list any more, which will be deleted.")
