"""The registered things on disk: what provides `psubd.interfaces.IRegistry`."""
