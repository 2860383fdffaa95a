"""The HTTP API of a server: `create_app` makes it, `python -m dialin.server.serve` runs it."""
