"""Storage on S3 and what speaks its protocol (MinIO, Ceph, R2).

Endpoint, region and credentials come from the standard AWS variables and profiles, which obstore reads (AWS_ENDPOINT,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ALLOW_HTTP). An S3 put is durable when it is answered.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from mishards.errors import SetupError
from mishards.storage.objects import ObjectStorage

RETRIES_MAX = 5  # P15
RETRY_TIMEOUT = timedelta(seconds=20)  # below the deadline of a request, so that its error names the storage


def open_storage(url: str) -> ObjectStorage:
    """Storage in the bucket (and below the prefix) that `s3://bucket/prefix` names. SetupError; does not connect."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise SetupError(f"storage URL '{url}' is not of the form s3://bucket/prefix")
    try:
        store = S3Store.from_url(url, retry_config={"max_retries": RETRIES_MAX, "retry_timeout": RETRY_TIMEOUT})
    except (BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise SetupError(f"storage URL '{url}': {reason}") from error
    return ObjectStorage(store, url)
