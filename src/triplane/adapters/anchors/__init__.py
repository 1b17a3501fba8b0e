"""Places outside the database that hold the latest checkpoint (``triplane.ports.Anchor``)."""
