"""Routes of accounts, filled in a moment."""

from fastapi import APIRouter

router = APIRouter()
