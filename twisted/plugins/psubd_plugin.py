"""Tells ``twistd`` that there is a psubd."""

from twisted.application.service import ServiceMaker

psubd = ServiceMaker("psubd", "psubd.tap", "A REST proxy for Kafka, or an embedded log: publish and subscribe over HTTP.", "psubd")
