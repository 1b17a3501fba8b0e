"""Faults: what Triplane survives, shown on real processes (docs/how-to/run-the-fault-campaign.md)."""
