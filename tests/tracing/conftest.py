from tests.e2e.conftest import command, simulator

__all__ = ["command", "simulator"]
