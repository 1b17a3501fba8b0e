"""Adapters on S3-compatible object storage; the only importers of obstore."""
