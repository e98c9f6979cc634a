"""An EMR made by hand: answers searches from what it is given, and tells what it was asked."""

from __future__ import annotations

import asyncio
import json

from deployr_serve.adapters.http import Response


class FakeEmr:
    """Answers searches by resource type from what it holds; an exception is raised, bytes are the answer.

    ``asked``: what came, as resource type and parameters.
    """

    def __init__(self, page_of, **held):
        self._page_of = page_of
        self._held = held
        self.asked = []

    async def send(self, request):
        kind = request.url.rsplit("/", 2)[1]
        self.asked.append((kind, dict(request.form)))
        await asyncio.sleep(0)
        held = self._held.get(kind, ())
        if isinstance(held, BaseException):
            raise held
        body = held if isinstance(held, bytes) else json.dumps(self._page_of(*held)).encode()
        return Response(status=200, content_type="application/fhir+json", body=body)
