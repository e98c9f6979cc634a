"""Drives a real Chromium as a hand does: keys, a pointer, and a look at what the page says of itself.

Source: the Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/ [seen].
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40, "ArrowUp": 38}
_LIMIT_S = 30


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take what Chromium says until it says no more."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and give its result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(_LIMIT_S):
            said = await answer
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, address: str) -> None:
        """Go to an address and wait until it is there."""
        self._loaded.clear()
        await self.ask("Page.navigate", url=address)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait until the page that was asked for is there."""
        async with asyncio.timeout(_LIMIT_S):
            await self._loaded.wait()

    async def js(self, expression: str) -> Any:
        """Give what an expression is worth in the page; a promise is waited for."""
        said = await self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a condition holds in the page."""
        look = (
            f"new Promise((done) => {{ const look = () => ({condition}) ? done(1) : setTimeout(look, 20); look(); }})"
        )
        await self.js(look)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        held = {"key": key, "code": key, "modifiers": 8 if shift else 0}
        held["windowsVirtualKeyCode"] = KEYS.get(key, ord(key.upper()[0]))
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **held, **({"text": text} if text else {}))
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **held)

    async def write(self, text: str) -> None:
        """Type text into what has the focus."""
        await self.ask("Input.insertText", text=text)

    async def press_and_go(self, key: str = "Enter") -> None:
        """Press a key that leads to another page, and wait for it."""
        self._loaded.clear()
        await self.press(key)
        await self.loaded()

    async def go(self, expression: str) -> None:
        """Do something in the page that leads to another one, and wait for that."""
        self._loaded.clear()
        await self.js(expression)
        await self.loaded()

    async def point(self, selector: str) -> None:
        """Move the pointer onto the middle of an element."""
        middle = f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect(); "
        middle += "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        x, y = await self.js(middle)
        await self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def point_away(self) -> None:
        """Move the pointer into the corner."""
        await self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)

    async def size(self, width: int, height: int) -> None:
        """Give the page so many pixels."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def scheme(self, name: str) -> None:
        """Prefer a colour scheme: `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": name}
        await self.ask("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, *, whole: bool = False) -> bytes:
        """Give what is seen as PNG, or the whole page."""
        shot = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    async def names(self) -> list[tuple[str, str]]:
        """Give role and name of everything that a screen reader is told of."""
        said = await self.ask("Accessibility.getFullAXTree")
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in said["nodes"]
            if not node["ignored"]
        ]


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """Start a Chromium with an empty profile in ``folder`` and give its one tab; skip where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        address = ""
        async with asyncio.timeout(_LIMIT_S):
            async for line in process.stderr:
                if b"DevTools listening on " in line:
                    address = line.decode().split("DevTools listening on ")[1].strip()
                    break
        reading = asyncio.create_task(process.stderr.read())
        port = address.split("/")[2]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{port}/json/list") as listed:
                tab = next(each for each in await listed.json(content_type=None) if each["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Runtime", "Log", "Accessibility"):
                    await page.ask(f"{domain}.enable")
                # A window that nobody looks at has no focus otherwise.
                await page.ask("Emulation.setFocusEmulationEnabled", enabled=True)
                yield page
                await socket.close()
                await listening
    finally:
        process.terminate()
        await process.wait()
    await reading
