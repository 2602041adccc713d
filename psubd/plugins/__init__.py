"""Drop-ins: which storages and registries there are.

A third party's wheel adds a file to this folder (and no ``__init__.py``) that holds instances of what provides
`psubd.interfaces.IStorageFactory` or `IRegistryFactory`; docs/plugins.md shows one.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
