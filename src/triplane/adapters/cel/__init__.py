"""Users' conditions, evaluated by Google's CEL in a process of their own that may be killed."""
