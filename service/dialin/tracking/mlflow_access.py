"""Authentication at the MLflow server of `dialin up`, by a secret that each start makes anew.

Requests of ours send it as a bearer token; MLflow's clients send it as a password, which has precedence over whatever
other credentials they find (tokens, a file of credentials)."""

from __future__ import annotations

import os
from base64 import b64encode

_USER = "dialin"
_OTHER_WAYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")


def accepted_headers(secret: str) -> tuple[bytes, ...]:
    """The values of the Authorization header that are accepted for a secret."""
    return f"Bearer {secret}".encode(), b"Basic " + b64encode(f"{_USER}:{secret}".encode())


def use_secret(secret: str) -> None:
    """Have every MLflow client of this process send the secret, and no credentials of other servers."""
    for name in _OTHER_WAYS:
        os.environ.pop(name, None)
    os.environ |= {
        "MLFLOW_TRACKING_USERNAME": _USER,
        "MLFLOW_TRACKING_PASSWORD": secret,
        "NETRC": os.devnull,  # credentials of a .netrc would be sent instead
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
