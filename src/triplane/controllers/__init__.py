"""Reconcilers: gather what is recorded, let ``domain`` decide, apply a step, until there is only waiting.

Level-based and idempotent: a full resync changes nothing. ``registry.Reconcilers`` is the entry point.
"""
