"""The miniature models of the conversion tests, and a cache of its own for every test."""

from tests.convert.conftest import _own_cache, model

__all__ = ["_own_cache", "model"]
