"""Where people open MLflow, and its page of a run."""

from __future__ import annotations

from dialin.settings import MLFLOW_PATH, Settings

# What makes MLflow's page show training runs; it shows chats with language models by default.
_TRAINING = "workflowType=machine_learning"


class MlflowLinks:
    """Links to MLflow's pages, for a server with these settings."""

    def __init__(self, settings: Settings) -> None:
        self._root = _root(settings)

    @property
    def home(self) -> str | None:
        """A path of this server, or the address of another one; None where MLflow has no pages, but a file."""
        return None if self._root is None else f"{self._root}/#/experiments?{_TRAINING}"

    def run(self, experiment: str, run: str) -> str | None:
        """The page of a run; None where MLflow has no pages, or while it does not have the run (`run` is empty)."""
        return (
            None if self._root is None or not run else f"{self._root}/#/experiments/{experiment}/runs/{run}?{_TRAINING}"
        )


def _root(settings: Settings) -> str | None:
    uri = settings.mlflow_uri
    if uri is None or not uri.startswith("http"):
        return None
    # With a secret, MLflow answers only this server, which passes requests on.
    return uri.rstrip("/") if settings.mlflow_secret is None else MLFLOW_PATH
