"""The real daemon on a real Kafka, over real HTTP."""
