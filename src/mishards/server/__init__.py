"""One process: `node` assembles, starts and stops it; `run` serves until a signal; `embedded` is for notebooks."""

from mishards.server.embedded import Running, start
from mishards.server.node import Server
from mishards.server.run import run

__all__ = ["Running", "Server", "run", "start"]
