"""The command line `fleetplan`: every command on the library alone, `nightly` and `ui` through Prefect."""

from flows.cli.main import app, main

__all__ = ["app", "main"]
