"""Wants the server's key on every path: vLLM's own key is wanted below /v1 and a few more, and not on others.

So vLLM is not told of ours. What its environment variables say, the key's too, 0.26 makes part of the name under which
it keeps what it compiled, and writes beside it: a new key would compile anew at each start, and lie in a file.

An ASGI middleware, which vLLM puts around its whole server by its own option `--middleware`. Its process imports this
file by name; standard library only.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

KEY: Final = "HOLDFAST_SERVER_KEY"  # of the environment: a command line is seen by everybody
OTHER: Final = "VLLM_API_KEY"  # a key that the caller has for another server: ours would want that as well
CLASS: Final = f"{__name__}.Keyed"  # as `--middleware` names it

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def environment(key: str) -> dict[str, str]:
    """Return what the server's environment must hold for it to want this key, and no other."""
    return {KEY: key, OTHER: ""}


class Keyed:
    """Answers 401 to whatever comes without the key, by any method, and opens no websocket to it.

    Args:
        app: what answers the others.

    Raises:
        KeyError: there is no key in the environment; the server does not start.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on what has the key, and the server's own start and end."""
        if scope["type"] == "lifespan" or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    def _has_key(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)
