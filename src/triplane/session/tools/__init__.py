"""Tools of a run: the session host is the only client of the real servers, and serves the harness one MCP endpoint.

Standard followed: Model Context Protocol, revision 2025-11-25 (and earlier ones that a server answers with), as far as
tools need it. The host speaks it with the runner's own HTTP client and a few hundred lines (docs/adr/0015): a peer's
message is bounded before it is parsed, and a run without tools pays nothing.
"""
