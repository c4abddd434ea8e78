"""Routes of corpora, filled in a moment."""

from fastapi import APIRouter

router = APIRouter()
