"""The HTTP door's pages for machines that look after processes: is it alive, can it serve, how is it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mishards.telemetry.exposition import CONTENT_TYPE, page
from mishards.telemetry.metrics import Source


def health_app(reasons: Callable[[], Sequence[str]], samples: Source) -> Starlette:
    """`/healthz` is 200 while the process answers; `/readyz` is 503 with the reasons while there are any; `/metrics` is
    what Prometheus reads."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(request: Request) -> Response:
        against = list(reasons())
        return JSONResponse({"ready": not against, "reasons": against}, 503 if against else 200)

    async def metrics(request: Request) -> Response:
        found = list(samples())  # here, where nothing changes meanwhile; writing them takes longer
        return Response(await asyncio.to_thread(page, found), headers={"content-type": CONTENT_TYPE})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
