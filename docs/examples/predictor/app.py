"""A predictor in a container of one's own: what deployr asks over HTTP, answered by any Python code.

Run it with ``uvicorn app:app --port 9000``, and put your model in the place of `risk`. Give `NAME` another version with
each change of the model: it is stored with every score, and a new one must prove itself before it scores anybody.
"""

from __future__ import annotations

import math

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

NAME = "example-net 1.0.0"
LARGEST = 10_000_000


def risk(features: dict[str, float]) -> float:
    """Give the probability of the outcome; features that are not named are 0."""
    return 1.0 / (1.0 + math.exp(1.0 - 0.5 * features.get("labs/4544-3/count", 0.0)))


async def predict(request: Request) -> JSONResponse:
    """Answer the protocol ``deployr``: rows of features by name to rows of outputs."""
    body = await request.body()
    if len(body) > LARGEST:
        return JSONResponse({"error": "too large"}, status_code=413)
    asked = await request.json()
    return JSONResponse({"answered_by": NAME, "rows": [[risk(row)] for row in asked["rows"]]})


async def invocations(request: Request) -> JSONResponse:
    """Answer as MLflow's scoring server does: columns and dense rows to predictions."""
    split = (await request.json())["dataframe_split"]
    rows = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
    return JSONResponse({"predictions": [risk(row) for row in rows]}, headers={"X-Model-Version": NAME})


app = Starlette(
    routes=[Route("/predict", predict, methods=["POST"]), Route("/invocations", invocations, methods=["POST"])]
)
