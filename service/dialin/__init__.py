"""dialin finds good training knobs: a search space goes in, the best configuration comes out.

    import dialin

    result = dialin.run_study("digits", overrides=["budget.trials=20"])
    print(result.best.params)

    study = dialin.open_study("last")
    print(study.to_dataframe())

    with dialin.Client("http://127.0.0.1:8080") as client:
        client.submit("digits").wait()

Importing this package loads nothing else; each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialin.client.client import Client
    from dialin.client.folder import FolderStudy, open_study, run_study
    from dialin.client.prepare import load_spec
    from dialin.errors import DialinError
    from dialin.results.summary import Result
    from dialin.specification.study_spec import StudySpec

    __version__: str

__all__ = [
    "Client",
    "DialinError",
    "FolderStudy",
    "Result",
    "StudySpec",
    "__version__",
    "load_spec",
    "open_study",
    "run_study",
]

_MODULES = {
    "Client": "dialin.client.client",
    "DialinError": "dialin.errors",
    "FolderStudy": "dialin.client.folder",
    "Result": "dialin.results.summary",
    "StudySpec": "dialin.specification.study_spec",
    "load_spec": "dialin.client.prepare",
    "open_study": "dialin.client.folder",
    "run_study": "dialin.client.folder",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("dialin")
    if name not in _MODULES:
        raise AttributeError(f"module 'dialin' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
