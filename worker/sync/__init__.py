"""Sync's other half: what is on the service, as changes that can be applied, and what changes would make of it."""
