"""How one shows MLflow's server of `dialin up` that one may use it: by the secret of this start. Our own requests show
it as a bearer's token; MLflow's clients as a password, which they prefer to whatever else they find (tokens, a file of
credentials)."""

from __future__ import annotations

import os
from base64 import b64encode

_USER = "dialin"
_OTHER_WAYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")


def accepted_headers(secret: str) -> tuple[bytes, ...]:
    """The values of the Authorization header that show the secret."""
    return f"Bearer {secret}".encode(), b"Basic " + b64encode(f"{_USER}:{secret}".encode())


def use_secret(secret: str) -> None:
    """Have every MLflow client of this process show the secret, and nothing that is meant for other servers."""
    for name in _OTHER_WAYS:
        os.environ.pop(name, None)
    os.environ |= {
        "MLFLOW_TRACKING_USERNAME": _USER,
        "MLFLOW_TRACKING_PASSWORD": secret,
        "NETRC": os.devnull,  # what a .netrc says of this machine would be sent instead
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
