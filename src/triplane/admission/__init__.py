"""The admission webhook: refuses graphs that could never run, before they are stored. Stateless; any number may run."""
