"""Acme's storages, for psubd to find."""

from acme_storage import AcmeFactory

acme = AcmeFactory()
