"""The paths of the HTTP API: each parses its request, calls one service and returns a model of `dialin.schemas`."""
