"""Keeps MLflow's artifact files inside one folder: no link below it is followed, nothing outside is read or written.

This relies on private parts of MLflow: its registry of artifact repositories, and methods of LocalArtifactRepository.
`confine_artifacts` is the one way to them; tests/tracking/test_upstream.py says when they change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def path_inside(root: Path, path: Path) -> bool:
    """Whether a path is in a folder, with no symbolic link between them. `root` must be resolved."""
    plain = Path(os.path.normpath(path))
    return plain.is_relative_to(root) and plain.resolve() == plain


def confine_artifacts(root: Path) -> None:
    """From now on MLflow in this process refuses, with PERMISSION_DENIED, artifact locations that are files outside
    `root`, whoever stored them in its database."""
    from mlflow.store.artifact import artifact_repository_registry

    registry: Any = artifact_repository_registry._artifact_repository_registry
    repository = _confined(root.resolve())
    for scheme in ("", "file"):
        registry.register(scheme, repository)


def _confined(root: Path) -> type:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    class ConfinedRepository(LocalArtifactRepository):  # type: ignore[misc]
        """Checks the whole path in each method; upstream checks only what is below the run's folder."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._check()

        def get_local_path(self, artifact_path: str) -> Any:
            self._check(artifact_path)
            return super().get_local_path(artifact_path)

        def list_artifacts(self, path: str | None = None) -> list[Any]:
            self._check(path)
            found = super().list_artifacts(path)
            return [info for info in found if path_inside(root, Path(self.artifact_dir, info.path))]

        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            self._check(artifact_path)
            super().delete_artifacts(artifact_path)

        def download_trace_data(self) -> Any:
            self._check()
            return super().download_trace_data()

        def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> Any:
            self._check(artifact_path)
            return super()._get_or_create_artifact_dir(artifact_path)

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            self._check(remote_file_path)
            super()._download_file(remote_file_path, local_path)

        def _check(self, path: str | None = None) -> None:
            if not path_inside(root, Path(self.artifact_dir, path or "")):
                what = f"artifact {path!r}" if path else "where this run's artifacts should be"
                raise MlflowException(f"{what} is not in the server's own folder", PERMISSION_DENIED)

    return ConfinedRepository
