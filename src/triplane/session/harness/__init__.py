"""How a harness is spoken with. This version knows one protocol: ``exec``."""
