"""The health pages and the HTTP door that serves them."""

from __future__ import annotations

import signal

import httpx
import pytest

from mishards.api.rest.door import HttpDoor
from mishards.api.rest.health import health_app
from mishards.errors import SetupError
from mishards.telemetry.metrics import Metric


async def test_ready_says_why_not() -> None:
    """/healthz is always 200; /readyz is 503 with the reasons until there are none."""
    reasons = ["no writer is reachable"]
    door = HttpDoor(health_app(lambda: reasons, tuple))
    port = await door.start("127.0.0.1", 0)
    before = signal.getsignal(signal.SIGTERM)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        alive = await client.get("/healthz")
        not_ready = await client.get("/readyz")
        reasons.clear()
        ready = await client.get("/readyz")
    await door.stop()

    assert (alive.status_code, alive.text) == (200, "ok")
    assert (not_ready.status_code, not_ready.json()["reasons"]) == (503, ["no writer is reachable"])
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})
    assert signal.getsignal(signal.SIGTERM) is before


async def test_metrics_are_read_when_asked_for() -> None:
    """/metrics is what the samples are at that moment, in the format that Prometheus names."""
    served = Metric("mishards_served_total", "counter", "Answers so far.")
    answers = [0]
    door = HttpDoor(health_app(list, lambda: [served.of(answers[0])]))
    port = await door.start("127.0.0.1", 0)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answers[0] = 5
        page = await client.get("/metrics")
    await door.stop()

    assert "\nmishards_served_total 5.0\n" in page.text
    assert page.headers["content-type"].startswith("text/plain; version=")


async def test_a_taken_port_is_a_setup_error() -> None:
    """A port in use cannot be listened on; stopping frees it."""
    first, second = HttpDoor(health_app(list, tuple)), HttpDoor(health_app(list, tuple))
    port = await first.start("127.0.0.1", 0)

    with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use$"):
        await second.start("127.0.0.1", port)
    await second.stop()
    await first.stop()

    assert await second.start("127.0.0.1", port) == port
    await second.stop()
