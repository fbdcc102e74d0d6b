"""What the receiver is compared with: reads each callback's body and answers 200, and does nothing else."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def _take(request: Request) -> Response:
    await request.body()
    return JSONResponse({"accepted": 0, "parked": 0, "dead_lettered": 0, "ignored": 0})


async def _livez(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


if __name__ == "__main__":
    routes = [Route("/callbacks/{account}", _take, methods=["POST"]), Route("/livez", _livez)]
    uvicorn.run(
        Starlette(routes=routes), port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off"
    )
