from tests.symbols.conftest import compiled, kernel

__all__ = ["compiled", "kernel"]
