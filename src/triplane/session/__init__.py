"""The execution plane: a runner takes claims, a session host carries out each run in a sandbox.

Everything here is disposable. What must last goes to the gateway; whatever is killed here is reaped there.
This package imports no Kubernetes client, no kopf and no database driver, so that a runner starts fast and
holds no authority but its tokens.
"""
