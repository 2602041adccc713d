"""The registry that many nodes share, on ZooKeeper through kazoo. docs/zookeeper.md says what is stored and how a node follows it.

kazoo does the protocol; none of its recipes is used. `line` sees what kazoo does not show: when a request was sent, what session the server
granted, whether the leader still answers. `client` is the blocking side, `session` the reactor's, `registry` and `membership` what psubd wants.
"""
