"""Several real daemons on a real ZooKeeper and a real Kafka, over real HTTP."""
