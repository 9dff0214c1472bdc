"""What the page asks the server, by the handlers themselves in a small server of their own."""

import asyncio
from io import BytesIO
from types import SimpleNamespace

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image
from sefi_pack.nodes.host.identities.saving import save_new_identity
from sefi_pack.nodes.host.page import board, routes
from sefi_pack.nodes.host.queued import note

JPEG = b"\xff\xd8 a picture"


@pytest.fixture
def trainings(monkeypatch):
    """One person's training, and a cast's of two people, queued by two clients."""
    monkeypatch.setattr(board, "records", {})
    alone = board.Training("w", "3", "p", 9, 5, client="a", reference=JPEG, preview=JPEG + b"!")
    people = [board.Member("anna", preview=JPEG + b"?"), board.Member("bob")]
    cast = board.Training("w", "4", "q", 9, 5, client="b", people=people, state="finished")
    return [board.begin(training) for training in (alone, cast)]


def answers(*asked):
    """Returns (status, content type, body) of requests: paths, or (path, JSON to post)."""

    async def ask():
        app = web.Application()
        app.add_routes(routes.ROUTES)
        async with TestClient(TestServer(app)) as client:
            found = []
            for one in asked:
                path, body = one if isinstance(one, tuple) else (one, None)
                answer = await (client.get(path) if body is None else client.post(path, json=body))
                kind = answer.content_type
                is_json = kind == "application/json"
                found.append(
                    (answer.status, kind, await (answer.json() if is_json else answer.read()))
                )
                assert answer.headers.get("Cache-Control", "no-store") == "no-store"
            return found

    return asyncio.run(ask())


def test_a_client_is_told_of_its_own_trainings_alone(trainings):
    paths = ("workflow=w&client=a", "workflow=w&client=b", "workflow=x&client=a", "workflow=w")
    by_client = answers(*(f"/sefi/trainings?{path}" for path in paths), "/sefi/trainings?prompt=q")
    told = [[one["prompt"] for one in body] for _, _, body in by_client]
    assert told == [["p"], ["q"], [], [], ["q"]]


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("prompt=p&node=3&of=reference", JPEG),
        ("prompt=p&node=3&of=preview", JPEG + b"!"),
        ("prompt=q&node=4&of=preview&person=0", JPEG + b"?"),
        ("prompt=q&node=4&of=preview&person=1", None),
        ("prompt=q&node=4&of=preview&person=2", None),
        ("prompt=q&node=4&of=preview&person=-1", None),
        ("prompt=q&node=3", None),
        ("", None),
    ],
)
def test_a_picture_is_there_or_404(trainings, query, data):
    ((status, kind, body),) = answers(f"/sefi/picture?{query}")
    assert (status, kind, body) == (200, "image/jpeg", data) if data else status == 404


def test_only_what_runs_is_asked_to_keep(trainings):
    keep = (
        ("/sefi/keep", {"prompt": "p", "node": "3"}),
        ("/sefi/keep", {"prompt": "q", "node": "4"}),
    )
    asked = answers(*keep, ("/sefi/keep", {"prompt": "p"}), ("/sefi/keep", [1]))
    assert [body for *_, body in asked[:2]] == [{"running": True}, {"running": False}]
    assert [status for status, *_ in asked[2:]] == [400, 400]
    assert [training.keep_asked for training in trainings] == [True, False]


def test_a_cover_is_that_of_a_file_that_is_offered(learned, tmp_path, monkeypatch):
    import folder_paths

    places = [str(tmp_path)], {".safetensors"}
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sefi", places)
    save_new_identity(learned, "anna", torch.rand(1, 64, 64, 3))
    save_new_identity(learned, "bob")
    names = [f"{name}_00001_.safetensors" for name in ("anna", "bob")]
    cards, *covers = answers(
        "/sefi/identities", *(f"/sefi/cover?name={name}" for name in (*names, "../x", ""))
    )
    assert {name in str(cards[2]) for name in names} == {True}
    assert [status for status, *_ in covers] == [200, 404, 404, 404]
    assert Image.open(BytesIO(covers[0][2])).size[0] > 0


def test_they_are_served_once_and_by_a_server_alone(monkeypatch):
    monkeypatch.delattr(routes.PromptServer, "instance", raising=False)
    routes.serve()
    handlers = []
    table = web.RouteTableDef()
    server = SimpleNamespace(
        routes=table, on_prompt_handlers=handlers, add_on_prompt_handler=handlers.append
    )
    monkeypatch.setattr(routes.PromptServer, "instance", server, raising=False)
    routes.serve()
    routes.serve()
    assert handlers == [note]
    assert sorted(route.path for route in table) == sorted(route.path for route in routes.ROUTES)
