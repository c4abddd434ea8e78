"""What tests of exports and evaluations share with the playground's: a checkpoint that was really trained."""

from tests.app.playground.conftest import checkpoint, keep, trained

__all__ = ["checkpoint", "keep", "trained"]
