"""Triplane: a Kubernetes operator for accountable agent work."""
