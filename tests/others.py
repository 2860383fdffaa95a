"""What Ray, MLflow and their dependencies warn of in their own code: nothing that a test of ours could mend."""

from __future__ import annotations

import pytest

MLFLOW = [pytest.mark.filterwarnings(f"ignore::{name}") for name in ("DeprecationWarning", "FutureWarning")]
RAY = [
    *MLFLOW,
    # Ray leaves the ends of its processes to the garbage collector.
    *(
        pytest.mark.filterwarnings(f"ignore::{name}")
        for name in ("ResourceWarning", "UserWarning", "pytest.PytestUnraisableExceptionWarning")
    ),
]
