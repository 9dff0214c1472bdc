"""What our part of the page asks the server: trainings and their pictures, identities and theirs.

Answers are JSON or pictures. A name is looked up in the folders of identities and nowhere else.
"""

__all__ = ["serve"]

import asyncio
from collections.abc import Iterator
from json import JSONDecodeError

from aiohttp import web
from server import PromptServer

from ..queued import note
from . import board, gallery

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def trainings(request: web.Request) -> web.Response:
    """Those that a client queued, of a workflow's nodes, GET ?client=&workflow=; or of a prompt,
    whose id is known to whom queued it, GET ?prompt=.
    """
    client, prompt = (request.query.get(name, "") for name in ("client", "prompt"))
    found: Iterator[board.Training] = iter(())
    if prompt:
        found = board.of_prompt(prompt)
    elif client:
        found = board.of_workflow(request.query.get("workflow", ""), client)
    return web.json_response([training.told() for training in found], headers=HEADERS)


async def picture(request: web.Request) -> web.Response:
    """What a training learns, or its latest preview: GET ?prompt=&node=&of=reference|preview, of
    one of a cast with &person=, its index.
    """
    query = request.query
    training = board.with_prompt(query.get("prompt", ""), query.get("node", ""))
    shown = training and training.shown(query.get("person", ""))
    data = shown and (shown.reference if query.get("of") == "reference" else shown.preview)
    return image(data, "image/jpeg")


async def keep(request: web.Request) -> web.Response:
    """Ends a training early and keeps it: POST {prompt, node}; tells whether it was running."""
    try:
        asked = await request.json()
        training = board.with_prompt(asked["prompt"], asked["node"])
    except (JSONDecodeError, KeyError, TypeError):
        return web.Response(status=400)
    running = training is not None and training.state == "running"
    if running:
        training.keep_asked = True
    return web.json_response({"running": running}, headers=HEADERS)


async def identities(request: web.Request) -> web.Response:
    """A card of every identity that Load SeFi Embedding offers."""
    return web.json_response(await asyncio.to_thread(gallery.cards), headers=HEADERS)


async def cover(request: web.Request) -> web.Response:
    """The picture in an identity file: GET ?name=."""
    found = await asyncio.to_thread(gallery.cover, request.query.get("name", ""))
    return image(*(found or (None, "")))


def image(data: bytes | None, kind: str) -> web.Response:
    if not data:
        return web.Response(status=404)
    return web.Response(body=data, content_type=kind, headers=HEADERS)


ROUTES = (
    web.get("/sefi/trainings", trainings),
    web.get("/sefi/picture", picture),
    web.post("/sefi/keep", keep),
    web.get("/sefi/identities", identities),
    web.get("/sefi/cover", cover),
)


def serve() -> None:
    """Adds the routes to the host's, which serves them below /api too; once, and only if there is a
    server.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    if note not in server.on_prompt_handlers:
        server.add_on_prompt_handler(note)
    served = {getattr(route, "path", None) for route in server.routes}
    for route in ROUTES:
        if route.path not in served:
            server.routes.route(route.method, route.path)(route.handler)
