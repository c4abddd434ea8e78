"""Routers that are asked only for their own paths find every route as before."""

import re

import pytest
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts
from starlette.routing import Match
from starlette.testclient import TestClient
from starlette.types import Scope

from app.main import app, create_app
from app.web.routing import filter_routers


def scope(path: str, method: str) -> Scope:
    return {"type": "http", "path": path, "root_path": "", "method": method, "headers": []}


def test_every_route_and_no_other_is_found_as_without_the_filter() -> None:
    plain, filtered = create_app(), create_app()
    filter_routers(filtered.routes)
    paths = {context.path for context in iter_route_contexts(plain.routes) if context.path}
    assert len(paths) > 200
    examples = {re.sub(r"{\w+(:path)?}", "06g1", path) for path in paths}
    examples |= {f"{path}/" for path in examples} | {"", "//", "/\n", "/jobs/06g1/x/y"}
    for path in examples:
        matches = [[route.matches(scope(path, "GET"))[0] for route in one.routes] for one in (plain, filtered)]
        assert matches[0] == matches[1], path


def test_a_router_is_not_asked_for_the_paths_of_others(web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[APIRouter] = []
    matches = APIRouter.matches
    monkeypatch.setattr(APIRouter, "matches", lambda self, scope: (asked.append(self), matches(self, scope))[1])
    assert web.get("/livez").status_code == 200
    assert len(asked) == 1
    asked.clear()
    assert all(route.matches(scope("/nowhere", "GET"))[0] is Match.NONE for route in app.routes)
    assert asked == []
