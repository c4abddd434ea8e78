"""What tests of evaluations share with the playground's: a checkpoint that was really trained."""

from tests.app.playground.conftest import checkpoint, store_checkpoint, trained

__all__ = ["checkpoint", "store_checkpoint", "trained"]
