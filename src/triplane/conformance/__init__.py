"""The contracts' own tests, for whoever writes a backend: the same that every shipped backend passes.

Each module is a suite of plain pytest functions. They ask for one fixture, ``opening``, which gives a function that
opens another empty store each time; what it opens (a *subject*) is described in the module ``…subject``. There is no
backend's name in any suite. Run one with ``triplane conformance``, or bind it in a test module of your own::

    from triplane.conformance.content import *

    @pytest.fixture
    def opening():
        return my_package.opened

Needs the extra ``triplane[conformance]``: pytest, pytest-asyncio, hypothesis. See docs/how-to/write-a-backend.md.
"""
