"""Runs in an environment of its own, with nothing but what is deployed: imports the app as the worker does, asks it.

``python invoke.py FOLDER``: the deployed files; settings come from the environment. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime, timedelta, timezone

import azure.functions as func

FORBIDDEN = ("pandas", "sklearn", "matplotlib", "duckdb", "typer", "uvicorn", "streamlit", "pytest")
"""What only training, the demo and the tests need, and what is deployed must not ask for. (SciPy is treelite's.)"""


async def main(folder: str) -> dict[str, object]:
    sys.path.insert(0, folder)
    import function_app

    functions = {each.get_function_name(): each.get_user_function() for each in function_app.app.get_functions()}
    # Nepal's offset, as the tests' own instant.
    at = datetime(2015, 1, 7, 2, 40, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    asked = {"patientId": "p1", "encounterId": "e1", "orderId": "o1", "eventTime": at.isoformat()}
    request = func.HttpRequest(
        method="POST",
        url="http://localhost/api/models/hematocrit/infer",
        headers={"Content-Type": "application/json"},
        route_params={"model": "hematocrit"},
        body=json.dumps(asked).encode(),
    )
    answer = await functions["infer"](request)
    ready = await functions["health_ready"](func.HttpRequest(method="GET", url="http://localhost/", body=b""))
    await function_app.application.aclose()
    return {
        "python": ".".join(map(str, sys.version_info[:2])),
        "functions": sorted(functions),
        "status": answer.status_code,
        "answer": json.loads(answer.get_body()),
        "ready": json.loads(ready.get_body())["status"],
        "from": function_app.__file__,
        "forbidden": [name for name in FORBIDDEN if name in sys.modules],
    }


sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))) + "\n")
