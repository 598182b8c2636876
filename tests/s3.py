"""An S3 server in this process with one bucket. Servers of one process share what they hold: use a fresh prefix."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from mishards.storage.objects import ObjectStorage

BUCKET = "bucket"
KEYS = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}


def serving() -> Iterator[str]:
    """Its endpoint, as long as it is iterated."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")).close()
    yield endpoint
    server.stop()


def storage_at(endpoint: str, prefix: str) -> ObjectStorage:
    """Storage below a prefix of the bucket."""
    store = S3Store(BUCKET, prefix=prefix, endpoint=endpoint, client_options={"allow_http": True}, **KEYS)
    return ObjectStorage(store, f"s3://{BUCKET}/{prefix}")
