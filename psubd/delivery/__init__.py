"""Who gets which message, without I/O: no Twisted, no clock, nothing of the registry. `psubd.services` drives it.

`ledger` holds the rules for one partition of one group; `cursor` is how its place stands in the storage's commit.
"""
