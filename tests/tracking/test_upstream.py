"""What dialin needs of MLflow beside its public client. A failure here names what a new version of MLflow changed."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests import others

pytestmark = others.MLFLOW


@pytest.mark.parametrize(
    ("module", "name", "needed_by"),
    [
        ("mlflow.store.artifact.artifact_repository_registry", "_artifact_repository_registry", "confine_artifacts"),
        ("mlflow.store.artifact.local_artifact_repo", "LocalArtifactRepository", "confine_artifacts"),
        ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore", "mlflow_app._make_store"),
        ("mlflow.server.handlers", "initialize_backend_stores", "open_mlflow"),
        *(
            ("mlflow.server.constants", f"{name}_ENV_VAR", "open_mlflow")
            for name in (
                "BACKEND_STORE_URI",
                "REGISTRY_STORE_URI",
                "ARTIFACT_ROOT",
                "ARTIFACTS_DESTINATION",
                "SERVE_ARTIFACTS",
            )
        ),
    ],
)
def test_a_name_is_where_it_was(module, name, needed_by):
    found = hasattr(importlib.import_module(module), name)
    assert found, f"MLflow no longer has {module}.{name}, which dialin.tracking's {needed_by} uses"


def test_the_registry_of_artifact_repositories_still_takes_one_for_a_scheme():
    from mlflow.store.artifact import artifact_repository_registry

    register = getattr(artifact_repository_registry._artifact_repository_registry, "register", None)
    assert callable(register), "MLflow's registry of artifact repositories has no `register` any more"
    parameters = list(inspect.signature(register).parameters)
    assert parameters == ["scheme", "repository"], f"`register` of MLflow's artifact registry takes {parameters} now"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("get_local_path", ["artifact_path"]),
        ("list_artifacts", ["path"]),
        ("delete_artifacts", ["artifact_path"]),
        ("download_trace_data", []),
        ("_get_or_create_artifact_dir", ["artifact_path"]),
        ("_download_file", ["remote_file_path", "local_path"]),
    ],
)
def test_the_methods_that_are_confined_are_those_that_mlflow_calls(method, parameters):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    function = getattr(LocalArtifactRepository, method, None)
    assert function is not None, (
        f"LocalArtifactRepository.{method} is gone: confine_artifacts no longer checks its path"
    )
    found = [name for name in inspect.signature(function).parameters if name != "self"]
    assert found == parameters, (
        f"LocalArtifactRepository.{method} takes {found} now; confine_artifacts passes {parameters}"
    )


def test_every_method_with_a_path_is_confined():
    """A new method that reads or writes a path would escape the folder of artifacts."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    known = {
        "__init__", "get_local_path", "list_artifacts", "delete_artifacts", "download_trace_data", "_download_file",
        "_get_or_create_artifact_dir",
        # These reach a path through `_get_or_create_artifact_dir` or `get_local_path` only.
        "log_artifact", "log_artifacts", "log_artifact_from_stream", "log_artifact_from_async_stream",
        "download_artifacts", "artifact_dir", "_create_staging_artifact", "_get_destination_artifact_path",
        "_publish_staged_artifact", "_cleanup_staged_artifact", "_write_to_destination_path",
        "_is_directory",  # says only whether there is a folder
    }  # fmt: skip
    own = {
        name for name, value in vars(LocalArtifactRepository).items() if callable(value) or isinstance(value, property)
    }
    assert own <= known, f"LocalArtifactRepository has {sorted(own - known)}, which confine_artifacts does not know"
