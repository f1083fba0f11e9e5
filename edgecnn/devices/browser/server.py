"""The server that one page takes a job from and brings its result to.

Every path begins with a token that was made for this one job and is only found in the address that the user
was shown. What can be read has fixed names; nothing is looked up by a path that came in.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import queue
import re
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from numpy.typing import NDArray

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TAKEN = (
    "This job is open in another page already. Close this one, and start the command again for another run."
)
FINISHED = "This job is finished. Start the command again for another run."
NO_TOKEN = "This address is not complete, or belongs to an earlier run: scan the code again."

# A soak of half an hour with a model of 1 ms takes 20 MB of JSON.
MAX_RESULT_BYTES = 64 << 20
MAX_NOTE_BYTES = 1 << 16
"""Of what a page says of itself, of its progress and of its errors."""
MAX_OUTPUT_BYTES = 64 << 20
"""Of the outputs of one batch."""
MAX_OUTPUTS_BYTES = 1 << 30
MAX_INPUT_BYTES = 256 << 20
"""Of one request for inputs."""

# How long requests under way may take to end once the job is done.
_LINGER_S = 2.0
_PAGE = resources.files("edgecnn.devices.browser") / "page"
_MEDIA_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


@dataclass(frozen=True)
class Offer:
    """What a page may read, and where its outputs go."""

    request: dict[str, Any]
    """The job as JSON."""
    model: Path
    """The model file."""
    inputs: NDArray[Any] | None
    """Any number of the model's batches along the first axis."""
    files: dict[str, Path]
    """Files of the runtime, by the names that the page asks for."""
    outputs: Path
    """Takes the outputs for the inputs, one batch after the other, as they lie in memory."""


class Exchange:
    """The ASGI application: gives one job to the first page that takes it, and queues what the page says."""

    def __init__(self, offer: Offer, token: str) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        """``taken``, ``progress``, ``error``, ``result``, and ``gone`` where the page was closed."""
        self._offer = offer
        self._token = token.encode()
        self._state = "open"
        self._batches = self._outputs_bytes = 0
        self._finished = asyncio.Event()
        page = (_PAGE / "page.html").read_text(encoding="utf-8")
        self._page, self._script = page, (_PAGE / "page.js").read_text(encoding="utf-8")
        self._headers = _headers(page)
        self._routes = Starlette(
            routes=[
                Route("/", self._get_page),
                Route("/page.js", self._get_script),
                Route("/model", self._get_model),
                Route("/inputs/{start}/{stop}", self._get_inputs),
                Route("/runtime/{name}", self._get_runtime),
                Route("/take", self._take, methods=["POST"]),
                Route("/progress", self._take_progress, methods=["POST"]),
                Route("/outputs/{batch}", self._take_outputs, methods=["POST"]),
                Route("/error", self._take_error, methods=["POST"]),
                Route("/result", self._take_result, methods=["POST"]),
            ]
        )
        self._routes.router.redirect_slashes = False  # it would answer with the Host that came in

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        given = scope["path"].split("/")[1:2]
        if given and secrets.compare_digest(given[0].encode("utf-8", "replace"), self._token):
            application: Any = self._routes
            scope["root_path"] = f"/{given[0]}"
        else:
            application = PlainTextResponse(NO_TOKEN, 403)
        with suppress(ClientDisconnect):  # nobody is left to hear of it
            await application(scope, receive, send_with_headers)

    def finish(self) -> None:
        """Let go of the page; in the server's thread."""
        self._state = "finished"
        self._finished.set()

    async def hold(self, receive: Receive) -> None:
        """Wait until the page is closed or the job is finished."""
        gone = asyncio.create_task(_disconnected(receive))
        finished = asyncio.create_task(self._finished.wait())
        await asyncio.wait({gone, finished}, return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            self._state = "finished"
            self.events.put({"event": "gone"})
        gone.cancel()
        finished.cancel()

    async def _get_page(self, request: Request) -> Response:
        if self._state != "open":
            return PlainTextResponse(TAKEN if self._state == "taken" else FINISHED, 409)
        return Response(self._page, media_type="text/html")

    async def _get_script(self, request: Request) -> Response:
        return Response(self._script, media_type="text/javascript")

    async def _get_model(self, request: Request) -> Response:
        return FileResponse(self._offer.model, media_type="application/octet-stream")

    async def _get_runtime(self, request: Request) -> Response:
        path = self._offer.files.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix])

    async def _get_inputs(self, request: Request) -> Response:
        start, stop = _number(request, "start"), _number(request, "stop")
        inputs = self._offer.inputs
        if inputs is None or not start < stop <= len(inputs):
            raise HTTPException(404, "the job has no such inputs")
        if inputs[start:stop].nbytes > MAX_INPUT_BYTES:
            raise HTTPException(413, f"more than {MAX_INPUT_BYTES} bytes of inputs at once")
        return Response(inputs[start:stop].tobytes(), media_type="application/octet-stream")

    async def _take(self, request: Request) -> Response:
        about = await _json(request, MAX_NOTE_BYTES)
        if self._state != "open":
            return PlainTextResponse(TAKEN if self._state == "taken" else FINISHED, 409)
        self._state = "taken"
        self.events.put({**about, "event": "taken"})
        return _Held(self, json.dumps(self._offer.request).encode() + b"\n")

    async def _take_progress(self, request: Request) -> Response:
        return self._pass_on("progress", await _json(request, MAX_NOTE_BYTES))

    async def _take_error(self, request: Request) -> Response:
        return self._pass_on("error", await _json(request, MAX_NOTE_BYTES))

    async def _take_result(self, request: Request) -> Response:
        return self._pass_on("result", await _json(request, MAX_RESULT_BYTES))

    async def _take_outputs(self, request: Request) -> Response:
        batch = _number(request, "batch")
        body = await _body(request, MAX_OUTPUT_BYTES)
        if self._state != "taken":
            return PlainTextResponse(FINISHED, 409)
        if batch != self._batches:
            raise HTTPException(400, f"the outputs of batch {self._batches} come next")
        self._outputs_bytes += len(body)
        if self._outputs_bytes > MAX_OUTPUTS_BYTES:
            raise HTTPException(413, f"more than {MAX_OUTPUTS_BYTES} bytes of outputs")
        with self._offer.outputs.open("ab") as file:
            file.write(body)
        self._batches += 1
        self.events.put({"event": "progress"})
        return Response(status_code=204)

    def _pass_on(self, event: str, said: dict[str, Any]) -> Response:
        if self._state != "taken":
            return PlainTextResponse(FINISHED, 409)
        self.events.put({**said, "event": event})
        if event in ("error", "result"):
            self.finish()
        return Response(status_code=204)


class _Held(Response):
    """One line, and a connection that stays open as long as page and job do: whichever ends, the other hears.

    A page that crashes or is closed cannot be trusted to say so.
    """

    def __init__(self, exchange: Exchange, line: bytes) -> None:
        super().__init__()
        self._exchange, self._line = exchange, line

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._line, "more_body": True})
        await self._exchange.hold(receive)
        await send({"type": "http.response.body", "body": b""})


class Server:
    """An exchange on a listening socket, in a thread of its own; leaving the context ends both."""

    def __init__(self, exchange: Exchange, listening: socket.socket, certificate: Path | None = None) -> None:
        """Prepare it.

        Args:
            exchange: what is served.
            listening: a socket, which the server closes.
            certificate: a PEM file of a key and its certificate, for https.
        """
        self._exchange, self._socket = exchange, listening
        config = uvicorn.Config(
            exchange,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            access_log=False,
            # What matters reaches the user as an event; a stranger's broken request is no news.
            log_config=None,
            log_level=logging.CRITICAL,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=certificate,
            ssl_keyfile=certificate,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._exchange.finish)
        self._thread.join(_LINGER_S)
        self._server.force_exit = True
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])


def _headers(page: str) -> list[tuple[bytes, bytes]]:
    """What all responses carry: isolation, which threads and a fine clock need; nothing from elsewhere."""
    inline = {tag: _hashes(page, tag) for tag in ("script", "style")}
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' {inline['script']}",
        "style-src": inline["style"],
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _hashes(page: str, tag: str) -> str:
    """The page's inline elements of that name, as a content security policy names them."""
    texts = re.findall(rf"<{tag}[^>]*>(.+?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def _number(request: Request, name: str) -> int:
    text = request.path_params[name]
    if not re.fullmatch("[0-9]{1,9}", text):
        raise HTTPException(404)
    return int(text)


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, f"more than {limit} bytes")
    return bytes(body)


async def _json(request: Request, limit: int) -> dict[str, Any]:
    try:
        said = json.loads(await _body(request, limit))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "no JSON") from error
    if not isinstance(said, dict):
        raise HTTPException(400, "a JSON object is expected")
    return said


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
