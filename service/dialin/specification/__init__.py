"""What a person asks for: reading it, checking it, and the knobs it may name. Loads pydantic and yaml, nothing else."""

from dialin.specification.configuration import active_params, complete, sampler_of, searched, uses_prior
from dialin.specification.lint import LintWarning, lint
from dialin.specification.parsing import load_spec, parse_spec, spec_from_data
from dialin.specification.stored import damage_of, spec_of_study, stored_spec
from dialin.specification.study_spec import StudySpec
from dialin.specification.writing import to_block_yaml, to_data, to_yaml

__all__ = [
    "LintWarning",
    "StudySpec",
    "active_params",
    "complete",
    "damage_of",
    "lint",
    "load_spec",
    "parse_spec",
    "sampler_of",
    "searched",
    "spec_from_data",
    "spec_of_study",
    "stored_spec",
    "to_block_yaml",
    "to_data",
    "to_yaml",
    "uses_prior",
]
