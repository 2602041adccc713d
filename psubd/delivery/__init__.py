"""Who gets which message, without I/O: no Twisted, no clock, nothing of the registry. `psubd.services` drives it.

`ledger` holds the rules for one partition of one group, drawn as a table from `states`; `terms` is what it is told to go by and what it hands
out. Within it, `window` is what was read, `book` what is open, `deadlines` when that lapses, `lanes` the order within keys, `ranges` what is done
beyond. `cursor` is how its place stands in the storage's commit, `snapshot` all of it as a value that moves to another process.
"""
