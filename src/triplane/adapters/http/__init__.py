"""Backends reached over HTTP."""
