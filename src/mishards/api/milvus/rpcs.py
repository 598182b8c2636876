"""Every method of Milvus' service, read from its protobuf descriptor, and how each answers with a failure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from google.protobuf import message_factory

from mishards.api.milvus.stubs import common_pb2, milvus_pb2
from mishards.errors import Kind, MishardsError

SERVICE: Final = "milvus.proto.milvus.MilvusService"
_STATUS_FIELDS: Final = ("status", "alter_status")
_REASON_CHARACTERS_MAX: Final = 4096  # a request's own text, such as a filter, comes back in it
_INPUT_ERRORS: Final = (400, 413)  # HTTP statuses: the caller must change the request


class Rpc(NamedTuple):
    """One unary method whose response can carry a Status. `status_field` is "" where the response is the Status."""

    name: str
    request: Any
    response: Any
    status_field: str

    def success(self, response: Any) -> Any:
        """The response with its Status, which some clients look into also when it has nothing to say."""
        if self.status_field:
            getattr(response, self.status_field).SetInParent()
        return response

    def failure(self, error: MishardsError) -> Any:
        """The response that reports an error."""
        status = status_of(error)
        return self.response(**{self.status_field: status}) if self.status_field else status


def rpcs() -> dict[str, Rpc]:
    """All such methods by name. The others (two streams, two without a Status) are left to the transport to refuse."""
    found: dict[str, Rpc] = {}
    for method in milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods:
        field = _status_field(method.output_type)
        if field is not None and not method.client_streaming and not method.server_streaming:
            found[method.name] = Rpc(
                method.name,
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
                field,
            )
    return found


def status_of(error: MishardsError) -> Any:
    """The Status of an error: code and legacy error_code are both set, as clients look at either."""
    codes = error.kind.codes
    status = common_pb2.Status(
        code=codes.code,
        error_code=codes.legacy,
        reason=(error.message or error.kind.name)[:_REASON_CHARACTERS_MAX],
        retriable=codes.retryable,
    )
    if codes.http in _INPUT_ERRORS:
        status.extra_info["is_input_error"] = "true"
    return status


def unimplemented(name: str) -> MishardsError:
    return MishardsError(Kind.UNIMPLEMENTED, f"service unimplemented: {name}")


def _status_field(message: Any) -> str | None:
    if message.full_name == common_pb2.Status.DESCRIPTOR.full_name:
        return ""
    return next((name for name in _STATUS_FIELDS if name in message.fields_by_name), None)
