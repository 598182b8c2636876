"""The Milvus door itself: failures, limits, draining, and what it tells about the server."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import grpc
import numpy as np
import pytest
from fake_proxy import FakeProxy
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc
from served import Served

from mishards.api.milvus.calls import Workers
from mishards.api.milvus.dispatch import Dispatcher
from mishards.api.milvus.door import MilvusDoor, milvus_calls
from mishards.config import ProxySettings
from mishards.errors import Kind, MishardsError, SetupError


async def test_an_unexpected_exception_is_one_status_and_no_hang(served: Served) -> None:
    """A bug in a handler reaches the client at once as code 5; the client does not retry for minutes."""
    served.proxy.fail("collection", ZeroDivisionError("oops"))

    with pytest.raises(
        MilvusException, match="internal error in DescribeCollection: ZeroDivisionError: oops"
    ) as caught:
        await asyncio.wait_for(served.run(lambda c: c.describe_collection("a")), 5)

    assert caught.value.code == 5
    assert served.proxy.failures["collection"] == []


@pytest.mark.parametrize("kind", [Kind.METADATA_UNAVAILABLE, Kind.UNAVAILABLE, Kind.MEMORY_LIMIT, Kind.DEADLINE])
async def test_failures_of_the_service_are_statuses_with_their_words(served: Served, kind: Kind) -> None:
    """A service that cannot answer says why at once, marked as worth a retry."""
    served.proxy.fail("collection", MishardsError(kind, "the reason"))

    with pytest.raises(MilvusException, match="the reason") as caught:
        await served.run(lambda c: c.describe_collection("a"))

    assert caught.value.code == kind.codes.code
    assert caught.value.retriable
    assert not caught.value.is_input_error


async def test_a_long_reason_is_cut(served: Served) -> None:
    """A reason that quotes a request of a megabyte does not send it all back."""
    served.proxy.fail("collection", MishardsError(Kind.INTERNAL, "x" * 1_000_000))

    with pytest.raises(MilvusException) as caught:
        await served.run(lambda c: c.describe_collection("a"))

    assert len(caught.value.message) == 4096


@pytest.mark.parametrize("document", [b"{", b'"\xff"', b"[" * 5000 + b"]" * 5000])
async def test_broken_json_is_refused(document: bytes) -> None:
    """JSON that is malformed or nested without end, as parameter or template value, is code 1100, no internal error."""
    proxy = FakeProxy()
    dispatcher = Dispatcher(milvus_calls(proxy, Workers(), proxy.clock, "0"), 1 << 20)
    params = [common_pb2.KeyValuePair(key="params", value=document.decode(errors="replace"))]
    search = milvus_pb2.SearchRequest(collection_name="a", search_params=params)
    index = milvus_pb2.CreateIndexRequest(collection_name="a", extra_params=params)
    query = milvus_pb2.QueryRequest(collection_name="a", expr="j in {v}")
    query.expr_template_values["v"].array_val.json_data.data.append(document)

    answers = [
        milvus_pb2.SearchResults.FromString(await dispatcher.answer("Search", search.SerializeToString(), {}, None)),
        milvus_pb2.QueryResults.FromString(await dispatcher.answer("Query", query.SerializeToString(), {}, None)),
    ]
    created = await dispatcher.answer("CreateIndex", index.SerializeToString(), {}, None)
    statuses = [*(answer.status for answer in answers), common_pb2.Status.FromString(created)]

    assert [status.code for status in statuses] == [1100] * 3


async def test_every_method_of_the_service_answers_with_a_status() -> None:
    """Methods that are not served answer code 10 in their own response type; none raises, whatever the payload."""
    proxy = FakeProxy()
    dispatcher = Dispatcher(milvus_calls(proxy, Workers(), proxy.clock, "0"), 1000)
    served = milvus_calls(proxy, Workers(), proxy.clock, "0").keys()

    for method in dispatcher.methods:
        answer = await dispatcher.answer(method, b"", {}, None)
        broken = await dispatcher.answer(method, b"\xff\xff", {}, None)
        if method not in served:
            assert b"service unimplemented: " + method.encode() in answer
        else:
            assert b"is not a valid message" in broken

    assert len(dispatcher.methods) == 144 - 4  # two streams, two responses without a Status


async def test_responses_have_a_status_when_all_is_well(served: Served) -> None:
    """Clients in other languages look into the Status of every response: it is there, and says success."""
    stub = await served.run(lambda c: c._get_connection()._stub)
    await served.run(lambda c: c.create_collection("a", 4))
    responses = [
        await served.run(lambda c: stub.GetVersion(milvus_pb2.GetVersionRequest())),
        await served.run(lambda c: stub.GetLoadingProgress(milvus_pb2.GetLoadingProgressRequest(collection_name="a"))),
        await served.run(lambda c: stub.ShowCollections(milvus_pb2.ShowCollectionsRequest())),
    ]

    assert [response.HasField("status") for response in responses] == [True] * 3
    assert [(response.status.code, response.status.error_code) for response in responses] == [(0, 0)] * 3


async def test_requests_over_the_limit_are_refused_with_both_numbers(served: Served) -> None:
    """A request larger than the setting is a clear Status, not a broken connection."""
    await served.run(lambda c: c.create_collection("a", 1000))

    with pytest.raises(MilvusException, match=r"is larger than the limit of 1048576 bytes") as caught:
        await served.run(lambda c: c.insert("a", [{"id": n, "vector": np.zeros(1000)} for n in range(300)]))

    assert caught.value.code == 1102


async def test_versions_and_health_are_told(served: Served) -> None:
    """The version starts as Milvus' do; health and component state follow the proxy."""
    assert await served.run(lambda c: c.get_server_version()) == "v2.6.0-mishards-0.1.0"
    assert (await served.run(lambda c: c.get_server_version(detail=True)))["deploy_mode"] == "STANDALONE"
    stub = await served.run(lambda c: c._get_connection()._stub)
    health = await served.run(lambda c: stub.CheckHealth(milvus_pb2.CheckHealthRequest()))
    state = await served.run(lambda c: stub.GetComponentStates(milvus_pb2.GetComponentStatesRequest()))

    assert health.isHealthy
    assert state.state.state_code == common_pb2.StateCode.Healthy


async def test_streams_are_unimplemented(served: Served) -> None:
    """Streaming methods are refused by the transport."""
    stub = await served.run(lambda c: c._get_connection()._stub)

    with pytest.raises(grpc.RpcError) as caught:
        await served.run(lambda c: list(stub.DumpMessages(milvus_pb2.DumpMessagesRequest())))

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_asynchronous_client_works_too(served: Served) -> None:
    """AsyncMilvusClient speaks to the same door, in the door's own loop."""
    client = AsyncMilvusClient(served.uri)
    try:
        await client.create_collection("a", 4)
        await client.insert("a", [{"id": 1, "vector": [1.0, 2.0, 3.0, 4.0]}])
        found = await client.search("a", [[1.0, 2.0, 3.0, 4.0]], limit=1)
    finally:
        await client.close()

    assert found[0][0]["id"] == 1


async def test_a_stopping_door_finishes_what_it_has_and_sends_others_away() -> None:
    """Calls in progress are answered; new ones fail with a code on which clients go to another proxy."""
    proxy = FakeProxy()
    proxy.hold = asyncio.Event()
    door = MilvusDoor(proxy, ProxySettings(), proxy.clock, "0", share_port=False)
    port = await door.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = milvus_pb2_grpc.MilvusServiceStub(channel)
        running = asyncio.ensure_future(stub.Search(search_of_four_numbers()))
        await proxy.reached.wait()

        stopping = asyncio.ensure_future(door.stop(5))
        await asyncio.sleep(0)
        proxy.hold.set()
        answer = await running
        await stopping
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetVersion(milvus_pb2.GetVersionRequest())

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answer.status.code == 100


def search_of_four_numbers() -> milvus_pb2.SearchRequest:
    vector = np.zeros(4, np.float32).tobytes()
    placeholder = common_pb2.PlaceholderValue(type=common_pb2.PlaceholderType.FloatVector, values=[vector])
    return milvus_pb2.SearchRequest(
        placeholder_group=common_pb2.PlaceholderGroup(placeholders=[placeholder]).SerializeToString(),
        search_params=[common_pb2.KeyValuePair(key="topk", value="1")],
    )


async def test_clients_do_not_notice_that_proxies_are_replaced() -> None:
    """While proxies that share a port stop and start one after the other, every call of a client succeeds."""
    proxy = FakeProxy()
    doors = [MilvusDoor(proxy, ProxySettings(), proxy.clock, "0") for _ in range(4)]
    port = await doors[0].start("127.0.0.1", 0)
    client = await asyncio.to_thread(MilvusClient, f"http://127.0.0.1:{port}", dedicated=True)
    stopped = asyncio.Event()

    async def call_on() -> int:
        calls = 0
        while not stopped.is_set():
            assert await asyncio.to_thread(client.has_collection, "a") is False
            calls += 1
        return calls

    calling = asyncio.create_task(call_on())
    for old, new in pairwise(doors):
        await new.start("127.0.0.1", port)
        await old.stop(1)
        await asyncio.to_thread(client.has_collection, "a")
    stopped.set()

    assert await calling > 0
    await asyncio.to_thread(client.close)
    await doors[-1].stop(0)


async def test_several_doors_may_share_a_port_and_others_may_not() -> None:
    """With `share_port` a second proxy listens on the same port; without it that is a SetupError."""
    proxy = FakeProxy()

    def door(share_port: bool) -> MilvusDoor:
        return MilvusDoor(proxy, ProxySettings(), proxy.clock, "0", share_port=share_port)

    one, two, alone = door(True), door(True), door(False)
    port = await one.start("127.0.0.1", 0)

    assert await two.start("127.0.0.1", port) == port
    with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port}"):
        await alone.start("127.0.0.1", port)
    for each in (one, two, alone):
        await each.stop(0)
