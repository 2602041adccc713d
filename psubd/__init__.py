"""psubd: a REST proxy for Kafka, or else an embedded log, that supports both publish and subscribe."""

__version__ = "0.1.0"
