"""A mail server on loopback, as much of one as handing in a mail takes; it keeps what it is given."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager


class MailServer:
    """``refuse``: the beginning of a command and the answer to it in place of the usual one."""

    def __init__(self, *, tls=None, refuse=("", "")):
        self.tls, self.refuse = tls, refuse
        self.mails, self.recipients, self.logins, self.was_tls = [], [], [], []

    @asynccontextmanager
    async def running(self):
        """Serve, and give the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader, writer):
        is_tls = False
        try:
            await _say(writer, "220 mail.example ESMTP")
            while line := (await reader.readline()).decode().strip():
                verb = line.partition(" ")[0].upper()
                begins, answer = self.refuse
                if begins and line.upper().startswith(begins):
                    await _say(writer, answer)
                elif verb == "EHLO":
                    offers = ["STARTTLS"] if self.tls and not is_tls else ["AUTH PLAIN"]
                    await _say(writer, "250-mail.example", *(f"250 {each}" for each in offers))
                elif verb == "STARTTLS":
                    await _say(writer, "220 go ahead")
                    await writer.start_tls(self.tls)
                    is_tls = True
                elif verb == "AUTH":
                    self.logins.append(base64.b64decode(line.split()[-1]).decode())
                    await _say(writer, "235 welcome")
                elif verb == "RCPT":
                    self.recipients.append(line)
                    await _say(writer, "250 ok")
                elif verb == "DATA":
                    await _say(writer, "354 end with a dot")
                    self.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                    self.was_tls.append(is_tls)
                    await _say(writer, "250 kept")
                elif verb == "QUIT":
                    await _say(writer, "221 bye")
                    break
                else:
                    await _say(writer, "250 ok")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _say(writer, *lines):
    writer.write("".join(f"{line}\r\n" for line in lines).encode())
    await writer.drain()
