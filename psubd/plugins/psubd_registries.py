"""psubd's own registries."""

from psubd.registry.local import LocalFactory

sqlite = LocalFactory()
