"""The HTTP door's health pages: is the process alive, can it serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


def health_app(reasons: Callable[[], Sequence[str]]) -> Starlette:
    """`/healthz` is 200 while the process answers; `/readyz` is 503 with the reasons while there are any."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(request: Request) -> Response:
        against = list(reasons())
        return JSONResponse({"ready": not against, "reasons": against}, 503 if against else 200)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])
