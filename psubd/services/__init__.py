"""The trade, long-lived: who publishes where (`publisher`, `partitioner`), who gets which message (`subscriber` and what it is made of),
what is registered (`registrar` and its parts), how the node fares (`monitor`). Each provides one interface of `psubd.interfaces` and gets
its neighbours by constructor.

The subscriber's parts, from a poll inwards: `polls` (an ask that waits, an answer that is not settled), `groups` (one loaded group: its queue
and who gets what), `live_topics` (one topic of it), `channels` (one partition of it: the ledger, and what keeps its window filled). Beside
them: `joins` (how a group comes to its places), `places` (where groups stand, and begin), `group_records` (their place in the registry),
`commits`, `resets` and `views` (for the manager and the tenants), `replay`, `rounds` (orders of coming one after another), `tallies`.
"""
