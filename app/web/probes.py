"""Probes for load balancers and container engines: liveness, readiness and version."""

from typing import Literal

import redis
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app.core import live
from app.core import migrations as schema
from app.core.version import VERSION

router = APIRouter(tags=["probes"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of what the web process needs. Without the broker it still works: jobs start later, live views lag."""

    database: Literal["ok", "away"]
    migrations: Literal["ok", "pending", "unknown"]
    broker: Literal["ok", "degraded"]


class Version(BaseModel):
    """The version of Athanor."""

    version: str = VERSION


@router.get("/livez")
def livez() -> Alive:
    """Whether the process is alive."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(response: Response) -> Readiness:
    """Whether requests can be answered: 503 without a database or with an older one."""
    try:
        migrations: Literal["ok", "pending"] = "ok" if schema.present() == schema.newest() else "pending"
        readiness = Readiness(database="ok", migrations=migrations, broker=broker())
    except SQLAlchemyError:
        readiness = Readiness(database="away", migrations="unknown", broker=broker())
    if readiness.migrations != "ok":
        response.status_code = 503
    return readiness


@router.get("/version")
def version() -> Version:
    """Get the version of Athanor."""
    return Version()


def broker() -> Literal["ok", "degraded"]:
    """Whether Valkey responds."""
    try:
        live.valkey().ping()
    except redis.RedisError:
        return "degraded"
    return "ok"
