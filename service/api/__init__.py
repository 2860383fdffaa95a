"""The HTTP API of a server: `create_app` makes it, `python -P -m service.api.serve` runs it."""
