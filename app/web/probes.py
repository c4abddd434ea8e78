"""Probes for load balancers and container engines: liveness, readiness and version.

They run in the event loop, with connections of their own: a flood of requests, a locked row or an exhausted pool
neither delays nor fails them.
"""

import asyncio
from typing import Literal

import psycopg
import redis
from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.core import db, disk
from app.core import migrations as schema
from app.core.live import async_valkey
from app.core.version import VERSION

router = APIRouter(tags=["probes"])
SECONDS = 3.0  # until what does not answer counts as away


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of what the web process needs.

    Without the broker it still works: jobs start later, live views lag. With a full disk it refuses uploads, imports,
    exports and new jobs; people can still delete what is no longer needed.
    """

    database: Literal["ok", "away"]
    migrations: Literal["ok", "pending", "unknown"]
    broker: Literal["ok", "degraded"]
    disk: Literal["ok", "full"]


class Version(BaseModel):
    """The version of Athanor."""

    version: str = VERSION


@router.get("/livez")
async def livez() -> Alive:
    """Whether the process is alive."""
    return Alive()


_check: asyncio.Task[Readiness] | None = None  # that runs at present


@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(response: Response) -> Readiness:
    """Whether requests can be answered: 503 without a database or with an older one."""
    global _check
    # All who ask at the same time share one check, and with it its connections.
    if _check is None or _check.done() or _check.get_loop() is not asyncio.get_running_loop():
        _check = asyncio.create_task(_readiness())
    readiness = await asyncio.shield(_check)
    if readiness.migrations != "ok":
        response.status_code = 503
    return readiness


@router.get("/version")
async def version() -> Version:
    """Get the version of Athanor."""
    return Version()


async def _readiness() -> Readiness:
    revision, broker, is_full = await asyncio.gather(_revision(), _broker(), asyncio.to_thread(disk.is_full))
    state: Literal["ok", "full"] = "full" if is_full else "ok"
    if revision is None:
        return Readiness(database="away", migrations="unknown", broker=broker, disk=state)
    migrations: Literal["ok", "pending"] = "ok" if revision == schema.newest() else "pending"
    return Readiness(database="ok", migrations=migrations, broker=broker, disk=state)


async def _revision() -> str | None:
    """The revision of the database, "" if it is empty; None if it does not answer."""
    try:
        async with (
            asyncio.timeout(SECONDS),
            await psycopg.AsyncConnection.connect(db.libpq_url(), autocommit=True) as connection,
        ):
            return await _one_text(connection, schema.REVISION_QUERY)
    except psycopg.errors.UndefinedTable:
        return ""
    except (psycopg.Error, TimeoutError):
        return None


async def _one_text(connection: psycopg.AsyncConnection, query: str) -> str:
    row = await (await connection.execute(query)).fetchone()
    return str(row[0]) if row is not None else ""


async def _broker() -> Literal["ok", "degraded"]:
    try:
        async with asyncio.timeout(SECONDS), async_valkey(SECONDS) as client:
            await client.ping()
    except (redis.RedisError, OSError, TimeoutError):
        return "degraded"
    return "ok"
