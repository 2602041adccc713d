"""The manager port: one noun, one module. `routes` is all that others need."""

from psubd.manager.desk import routes

__all__ = ["routes"]
