"""Decisions, pure: values in, values out. No clock, no environment, no network, no I/O."""
