"""The contract: one pydantic model file per kind of ``triplane.dev/v1alpha1``.

Pure: nothing here reads a clock, a file or the network. ``crd.render()`` turns the models into
CustomResourceDefinitions; the same models parse what the API server sends.
"""
