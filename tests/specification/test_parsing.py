"""Specifications in, records or exact messages out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialin.errors import SpecError
from dialin.specification import load_spec, parse_spec, spec_from_data, to_data, to_yaml
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Choice, Fixed, FloatRange, IntRange, RangeTested

HEAD = "name: x\nobjective: {dataset: digits}\n"


def space_of(text):
    return parse_spec(f"{HEAD}space:\n  {text}\n").space


def messages(text, overrides=()):
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "f.yaml", overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "name", "domain"),
    [
        ("lr: 1e-3", "lr", Fixed(0.001)),
        ("lr: 1", "lr", Fixed(1.0)),
        ("batch_size: 1e2", "batch_size", Fixed(100)),
        ("optimizer: [sgd, adam]", "optimizer", Choice(("sgd", "adam"))),
        ("optimizer: [sgd]", "optimizer", Fixed("sgd")),
        ("batch_size: [32, 64]", "batch_size", Choice((32, 64))),
        ("batch_size: {min: 16, max: 64}", "batch_size", IntRange(16, 64)),
        ("batch_size: {min: 16, max: 64, step: 16}", "batch_size", IntRange(16, 64, step=16)),
        ("lr: {min: 1e-4, max: 1, log: true}", "lr", FloatRange(1e-4, 1.0, log=True)),
        ("dropout: {min: 0, max: 0.5, step: 0.1}", "dropout", FloatRange(0.0, 0.5, step=0.1)),
        ("nesterov: [true, false]", "nesterov", Choice((True, False))),
        ("augmentation: flip+crop", "augmentation", Fixed("crop+flip")),
        ("augmentation: [none, flip]", "augmentation", Choice(("none", "flip"))),
        ("dropout: {min: 0.1, max: 0.3, step: 0.2}", "dropout", FloatRange(0.1, 0.3, step=0.2)),
        ("dropout: {min: 0, max: 0.9, step: 0.4}", "dropout", FloatRange(0.0, 0.8, step=0.4)),  # the last step
        ("batch_size: {min: 16, max: 128, step: 48}", "batch_size", IntRange(16, 112, step=48)),
        ("dropout: {value: 0.1}", "dropout", Fixed(0.1)),
        ("lr: {range_test: }", "lr", RangeTested()),
        (
            "lr: {range_test: {method: third, per: [optimizer], min: 1e-5, max: 5, steps: 50, seeds: 3}}",
            "lr",
            RangeTested("third", ("optimizer",), 1e-5, 5.0, 50, 3),
        ),
        ("dropout: {choices: [0, 0.1]}", "dropout", Choice((0.0, 0.1))),
    ],
)
def test_domains(text, name, domain):
    read = space_of(text)[name]
    assert read == domain
    assert str(read) == str(domain)  # 1 and 1.0 are equal, and not the same


@pytest.mark.parametrize("form", ["min: 0.5, max: 0.9", "value: 0.9", "choices: [0.5, 0.9]"])
def test_every_form_takes_a_condition(form):
    space = space_of(f"{{optimizer: [sgd, adam, rmsprop], momentum: {{{form}, when: {{optimizer: [sgd, rmsprop]}}}}}}")
    assert space["momentum"].when == {"optimizer": ("sgd", "rmsprop")}


def test_the_readme_says_how_each_of_these_is_refused():
    """One space with most mistakes: every one is named by line and path, in one go."""
    text = """name: Xx
objective: {dataset: digts, metrc: 3}
space:
  lrr: 3
  lr: {min: 0, max: 1, log: true}
  momentum: {min: .5, max: 0.4}
  batch_size: {min: 1.5, max: 30}
  optimizer: [sdg, adam]
  dropout: {value: 0.1, when: {foo: 3}}
  width: [8, 8]
  depth: []
  normalization: {min: 1, max: 2}
  activation: {value: relu, wen: {}}
  nesterov: 1
budjet: 3
budget: {trials: x, epochs: 0}
"""
    assert messages(text) == [
        "f.yaml: line 1: name: 'Xx'; allowed: 1 to 64 of a-z, 0-9, - and _, a letter or digit first",
        "f.yaml: line 2: objective.dataset: unknown data set 'digts'; did you mean 'digits'?",
        "f.yaml: line 2: objective.metrc: unknown key 'metrc'; did you mean 'metric'?",
        "f.yaml: line 4: space.lrr: unknown knob 'lrr'; did you mean 'lr'?",
        "f.yaml: line 5: space.lr.min: 0 is out of bounds; lr is above 0 and at most 100",
        "f.yaml: line 6: space.momentum: min 0.5 is not below max 0.4",
        "f.yaml: line 7: space.batch_size.min: 1.5 is not whole, and batch_size is",
        "f.yaml: line 8: space.optimizer.0: 'sdg' is not a value of optimizer; did you mean 'sgd'?",
        "f.yaml: line 9: space.dropout.when.foo: the condition names 'foo', which is not a knob of this space; "
        "allowed: activation, batch_size, depth, lr, momentum, nesterov, normalization, optimizer, width",
        "f.yaml: line 10: space.width: the value 8 appears twice",
        "f.yaml: line 11: space.depth: an empty list; name at least one value",
        "f.yaml: line 12: space.normalization: normalization has no range, because it is not a number; "
        "allowed: 'none', 'batch', 'group', 'layer', 'instance'",
        "f.yaml: line 13: space.activation.wen: unknown key 'wen'; did you mean 'when'?",
        "f.yaml: line 14: space.nesterov: 1 is not a value of nesterov; allowed: false, true",
        "f.yaml: line 15: budjet: unknown key 'budjet'; did you mean 'budget'?",
        "f.yaml: line 16: budget.trials: 'x' is not a whole number",
        "f.yaml: line 16: budget.epochs: 0 is below 1, the least",
    ]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("weight_decay: {min: 0, max: 1, log: true}", "space.weight_decay.min: a log range cannot touch 0, and min is 0"),
        ("lr: {min: 1, max: 1}", "space.lr: min 1 is not below max 1"),
        ("lr: {max: 1}", "space.lr: a range needs 'min' (or write a value, a list, or {value: ...})"),
        ("lr: {min: 1e-3, max: 1, log: true, step: 0.1}", "space.lr.step: log and step exclude each other"),
        ("lr: {min: 0.1, max: 1, step: 2}", "space.lr.step: 2 is wider than the range, 0.9"),
        ("lr: {min: 0.1, max: 1, step: 0}", "space.lr.step: 0 is not a number above 0"),
        ("lr: {min: 0.1, max: 1, step: 1e-300}", "space.lr.step: 1e-300 makes more than 1000000 steps; leave it out"),
        ("lr: .nan", "space.lr: nan is not finite"),
        ("lr: true", "space.lr: true is not a number"),
        ("lr: fast", "space.lr: 'fast' is not a number"),
        ("{lr: {range_test: {}}, dropout: {value: 0, when: {lr: 0.1}}}",
         "space.dropout.when.lr: lr is drawn from a continuous range, so a condition on one of its values never holds"),
        ("lr: {min: 0.1, high: 1}", "space.lr.high: unknown key 'high'; write max"),
        ("optimizer: {values: [sgd]}", "space.optimizer.values: unknown key 'values'; write choices: [...]"),
        ("optimizer: {chioces: [sgd]}", "space.optimizer.chioces: unknown key 'chioces'; did you mean 'choices'?"),
        ("lr: {range_test: {methd: knees}}", "space.lr.range_test.methd: unknown key 'methd'; did you mean 'method'?"),
        ("lr: {range_test: {method: knee}}", "space.lr.range_test.method: 'knee'; allowed: 'knees', 'third', 'minimum'"),
        ("lr: {range_test: {per: optimizer}}",
         "space.lr.range_test.per: 'optimizer' is not a list of other knobs, as in [optimizer, batch_size]"),
        ("lr: {range_test: {min: 1, max: 0.1}}", "space.lr.range_test: min 1 is not below max 0.1"),
        ("lr: {range_test: {steps: 5}}", "space.lr.range_test.steps: 5 is below 10, the least"),
        ("dropout: {range_test: {}}", "space.dropout.range_test: only lr has a range test, not dropout"),
        ("momentum: 1.0", "space.momentum: 1 is out of bounds; momentum is at least 0 and below 1"),
        ("augmentation: crop+flop", "space.augmentation: 'crop+flop' is not a value of augmentation; did you mean 'flip'?; "
         "allowed: none, or some of crop, flip, rotate, brightness, noise, cutout joined by +"),
        ("lr: {min: 1e-3, max: 1, when: {optimizer: sgd}}", "space.lr.when.optimizer: the condition names 'optimizer', "
         "which is not a knob of this space; allowed: "),
        ("{optimizer: [sgd, adam], lr: {value: 1, when: {optimizer: rmsprp}}}",
         "space.lr.when.optimizer: 'rmsprp' is not a value of optimizer; did you mean 'rmsprop'?"),
        ("{batch_size: {min: 16, max: 64}, lr: {value: 1, when: {batch_size: 0}}}",
         "space.lr.when.batch_size: 0 is out of bounds; batch_size is at least 1 and at most 65536"),
        ("{dropout: {min: 0, max: 0.5}, lr: {value: 1, when: {dropout: 0.2}}}",
         "space.lr.when.dropout: dropout is drawn from a continuous range, so a condition on one of its values never "
         "holds"),
        ("{optimizer: [sgd, adam], nesterov: {value: true, when: {optimizer: sgd}}, "
         "lr: {value: 1, when: {nesterov: true, optimizer: adam}}}",
         "space.lr.when: never holds: optimizer would have to be 'adam' and 'sgd'"),
        ("{lr: {value: 1, when: {dropout: 0.1}}, dropout: {value: 0.1, when: {lr: 1}}}",
         "space.lr.when: the conditions form a circle: lr -> dropout -> lr"),
    ],
)  # fmt: skip
def test_spaces_that_are_refused(space, message):
    assert messages(f"{HEAD}space:\n  {space}\n") == [f"f.yaml: line 4: {message}"]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("budget: {epochs: 3}\nearly_stopping: {asha: {grace_epochs: 4}}",
         "line 5: early_stopping.asha.grace_epochs: 4 is more than the 3 epochs of a trial (budget.epochs)"),
        ("early_stopping: {asha: {reduction_factor: 1}}",
         "line 4: early_stopping.asha.reduction_factor: 1 is below 1.1, the least"),
        ("early_stopping: {hyperband: {}}",
         "line 4: early_stopping.hyperband: unknown key 'hyperband'; allowed: asha, doctor"),
        ("search: {sampler: tpf}", "line 4: search.sampler: 'tpf'; allowed: 'auto', 'gp', 'tpe', 'random', 'grid'"),
        ("claim: {says: x, better: {lrr: 1}, than: {lr: 2}}", "line 4: claim.better.lrr: 'lrr' is not a knob of this space; did you mean 'lr'?"),
        ("early_stopping: {doctor: nurse}", "line 4: early_stopping.doctor: 'nurse'; allowed: 'off', 'warn', 'stop'"),
        ("search: fast", "line 4: search: 'fast' is not a mapping; keys: sampler, seed, trial_seed, enqueue, warm_start"),
        ("budget: {hours: .inf}", "line 4: budget.hours: inf is not a finite number"),
        ("budget: {epoch_minutes: -1}", "line 4: budget.epoch_minutes: -1 is below 0, the least"),
        ("budget: {epoch_minutes: soon}", "line 4: budget.epoch_minutes: 'soon' is not a number"),
        ("budget: {trials: 1.5}", "line 4: budget.trials: 1.5 is not a whole number"),
        ("resources: {gpus: 1.5}",
         "line 4: resources.gpus: 1.5 is neither a share of one GPU nor a whole number of them"),
        ("resources: {cpus: 1e-5}", "line 4: resources.cpus: 1e-05 is below 0.0001, the least"),
        ("resources: {gpus: 1e-5}", "line 4: resources.gpus: 1e-05 is below 0.0001, the least share"),
        ("early_stopping: 0", "line 4: early_stopping: 0 is not a mapping; keys: asha, doctor"),
        ("resources: {gpus: -1}", "line 4: resources.gpus: -1 is below 0, the least"),
        ("early_stopping: {asha: {rungs: [1, 3, 2]}}",
         "line 4: early_stopping.asha.rungs: [1, 3, 2] are not rising whole numbers from 1 to 8"),
        ("early_stopping: {asha: {rungs: [1, 3], grace_epochs: 1}}",
         "line 4: early_stopping.asha.rungs: grace_epochs says where the rungs begin; name either"),
        ("search: {enqueue: [{lr: [1]}]}",
         "line 4: search.enqueue.0.lr: [1] is not a number, text, true or false"),
        ("search: {enqueue: [{lr: 2}, {lrr: 1}]}",
         "line 4: search.enqueue.0.lr: 2 is not one of its values: 1.0\n"
         "f.yaml: line 4: search.enqueue.1.lrr: no knob of this space; did you mean 'lr'?"),
        ("search: {warm_start: x}", "line 4: search.warm_start: 'x' is not a list"),
        ("objective: 3", "line 4: the key 'objective' appears twice; first on line 2"),
    ],
)  # fmt: skip
def test_sections_that_are_refused(rest, message):
    assert "\n".join(messages(f"{HEAD}space: {{lr: 1}}\n{rest}\n")) == f"f.yaml: {message}"


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("{dataset: mnits}", "objective.dataset: unknown data set 'mnits'; did you mean 'mnist'?"),
        ("{dataset: 'npz:'}", "objective.dataset: 'npz:' names no path after 'npz:'"),
        ("{dataset: digits, mode: min}", "objective.mode: 'min' of val_accuracy finds the worst; use 'max'"),
        ("{metric: val_loss}", "objective.dataset: 'dataset' is missing"),
    ],
)
def test_objectives_that_are_refused(objective, message):
    assert messages(f"name: x\nobjective: {objective}\nspace: {{lr: 1}}\n") == [f"f.yaml: line 2: {message}"]


@pytest.mark.parametrize("text", ["[1]", "just text", "3"])
def test_a_document_that_is_no_mapping(text):
    assert messages(text) == ["f.yaml: line 1: not a mapping; a specification has keys such as name, objective, space"]


def test_a_grid_of_a_range_is_refused():
    text = f"{HEAD}space: {{lr: {{min: 0.1, max: 1}}}}\nsearch: {{sampler: grid}}"
    assert messages(text) == ["f.yaml: line 3: space.lr: a grid takes values and lists; this is a range"]


def test_a_claim_takes_values_and_lists():
    text = f"{HEAD}space: {{lr: [1, 2]}}\nclaim: {{says: x, better: {{lr: 1}}, than: {{lr: [2]}}}}"
    spec = parse_spec(text)
    assert (spec.claim.better, spec.claim.than) == ({"lr": [1]}, {"lr": [2]})
    assert parse_spec(to_yaml(spec)) == spec


def test_what_is_missing_is_named():
    assert messages("name: x") == ["f.yaml: 'objective' is missing", "f.yaml: 'space' is missing"]


@pytest.mark.parametrize("name", ["X", "a b", "-a", "a/b", "a" * 65])
def test_names_that_are_refused(name):
    line = messages(f"name: {name}\nobjective: {{dataset: digits}}\nspace: {{lr: 1}}")[0]
    assert line.startswith("f.yaml: line 1: name: ")
    assert line.endswith("allowed: 1 to 64 of a-z, 0-9, - and _, a letter or digit first")


def test_the_mode_follows_from_the_metric():
    spec = parse_spec("name: x\nobjective: {dataset: digits, metric: val_loss}\nspace: {lr: 1}")
    assert spec.objective.mode == "min"


@pytest.mark.parametrize(
    "text", ["early_stopping: off", "early_stopping: {asha: none}", "early_stopping: {asha: false}"]
)
def test_asha_can_be_switched_off(text):
    assert parse_spec(f"{HEAD}space: {{lr: 1}}\n{text}").early_stopping.asha is None


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("budget.epochs=3", lambda spec: spec.budget.epochs == 3),
        ("space.lr={min: 1e-4, max: 1, log: true}", lambda spec: spec.space["lr"] == FloatRange(1e-4, 1.0, True)),
        ("lr=0.5", lambda spec: spec.space["lr"] == Fixed(0.5)),
        ("early_stopping.asha.grace_epochs=2", lambda spec: spec.early_stopping.asha.grace_epochs == 2),
        ("objective.samples=2000", lambda spec: spec.objective.samples == 2000),
        ("name=other", lambda spec: spec.name == "other"),
    ],
)
def test_overrides(override, value):
    assert value(parse_spec(f"{HEAD}space: {{lr: 1}}", overrides=[override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.epoch=3", "budget.epoch: unknown key 'epoch'; did you mean 'epochs'? (from --set)"),
        ("budgt.epochs=3", "--set 'budgt.epochs=3': unknown key 'budgt'; did you mean 'budget'?"),
        ("budget.epochs", "--set 'budget.epochs': not of the form KEY=VALUE, as in budget.epochs=3"),
        ("budget.epochs=", "--set 'budget.epochs=': empty"),
        ("=", "--set '=': not of the form KEY=VALUE, as in budget.epochs=3"),
        ("lrr=1", "--set 'lrr=1': unknown key 'lrr'; did you mean 'lr'?"),
        ("lr=[", "--set 'lr=[': line 1: not YAML: "),
    ],
)
def test_overrides_that_are_refused(override, message):
    found = messages(f"{HEAD}space: {{lr: 1}}\nbudget: {{trials: 2}}", [override])
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml: {message[:60]}")


def test_a_condition_is_kept_as_the_knob_has_its_values():
    space = space_of("{augmentation: [none, crop+flip], lr: {value: 1, when: {augmentation: flip+crop}}}")
    assert space["lr"].when == {"augmentation": ("crop+flip",)}


def test_whole_numbers_may_be_written_with_an_exponent():
    spec = parse_spec(f"{HEAD}space: {{lr: 1}}\nbudget: {{trials: 1e2, hours: 2}}")
    assert (spec.budget.trials, spec.budget.hours) == (100, 2.0)
    assert type(spec.budget.trials) is int
    assert type(spec.budget.hours) is float


@pytest.mark.parametrize(
    ("given", "minutes"),
    [("", None), ("epoch_minutes: off", 0.0), ("epoch_minutes: 0", 0.0), ("epoch_minutes: 2.5", 2.5)],
)
def test_the_limit_of_an_epoch(given, minutes):
    spec = parse_spec(f"{HEAD}space: {{lr: 1}}\nbudget: {{{given}}}")
    assert spec.budget.epoch_minutes == minutes
    assert parse_spec(to_yaml(spec)) == spec
    assert ("epoch_minutes" in to_yaml(spec)) is (minutes is not None)  # an older version reads one without


def test_numbers_beyond_every_bound_are_refused_as_data_too():
    with pytest.raises(SpecError, match="out of bounds"):
        spec_from_data({"name": "x", "objective": {"dataset": "digits"}, "space": {"lr": 10**400}})


def test_many_values_are_read_at_once():
    assert len(space_of("lr: [" + ",".join(f"{1 + i / 1e4}" for i in range(20_000)) + "]")["lr"].values) == 20_000


def test_a_source_no_file_can_have_is_refused():
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec("x" * 5000)


def test_a_name_that_is_neither_file_nor_space():
    with pytest.raises(SpecError, match="'digts' is neither a file nor a shipped search space; did you mean 'digits'"):
        load_spec("digts")


def test_a_file_and_a_shipped_space(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{HEAD}space: {{lr: 1}}")
    assert load_spec(file).name == "x"
    assert load_spec("digits").objective.dataset == "digits"


@st.composite
def specs(draw):
    """Random specifications over the whole catalogue."""
    space = {}
    for knob in draw(st.lists(st.sampled_from(list(CATALOGUE.values())), min_size=1, unique_by=lambda k: k.name)):
        if knob.name == "lr" and draw(st.booleans()):
            space[knob.name] = {"range_test": {"per": ["optimizer"], "seeds": draw(st.integers(1, 3))}}
        elif knob.typical is not None and draw(st.booleans()):
            space[knob.name] = {"min": knob.typical.low, "max": knob.typical.high, "log": knob.typical.log}
        elif knob.choices:
            space[knob.name] = draw(st.lists(st.sampled_from(knob.choices), min_size=1, unique=True))
        else:
            space[knob.name] = knob.default({})
    data = {
        "name": draw(st.sampled_from(["no", "off", "1e3", "a_b-c", "007"])),
        "objective": {"dataset": draw(st.sampled_from(["digits", "npz:/a b/c: d.npz", "folder:#x"]))},
        "space": space,
        "budget": {"trials": draw(st.integers(1, 99)), "target": draw(st.none() | st.floats(-1e9, 1e9))},
        "search": {"seed": draw(st.integers(0, 2**31 - 1))},
        "early_stopping": draw(st.sampled_from(["off", {"asha": {"grace_epochs": 1}}, {}])),
    }
    spec = spec_from_data(data)
    return spec_from_data({**data, "prior": draw(st.sampled_from(["off", {}]) | priors(spec))})


def priors(spec):
    """What a space may say about good values of the knobs that it searches."""
    cases = {
        name: _centres(domain) for name, domain in spec.space.items() if not isinstance(domain, Fixed | RangeTested)
    }
    return st.fixed_dictionaries({}, optional=cases)


def _centres(domain):
    values, spread = st.sampled_from(domain.values) if isinstance(domain, Choice) else None, {}
    if values is None:
        values = st.sampled_from([domain.low, domain.high])
        spread = {"spread": st.sampled_from(["2x", "1.5 x", "1e1x"] if domain.log else [0.1, 3])}
    return values | st.just("off") | st.fixed_dictionaries({"around": values}, optional=spread)


@given(specs())
def test_what_is_written_reads_back_the_same(spec):
    assert parse_spec(to_yaml(spec)) == spec
    assert spec_from_data(to_data(spec)) == spec


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["name", "objective", "space", "lr", "optimizer", "when", "min", "max", "budget",
                                         "prior", "around", "spread", "dataset", "value", "choices", "asha", "early_stopping"]), inner, max_size=4),
                    max_leaves=12))  # fmt: skip
def test_no_data_gives_anything_but_a_spec_error(data):
    base = {"name": "x", "objective": {"dataset": "digits"}, "space": {"lr": 1}}
    try:
        spec_from_data({**base, **data} if isinstance(data, dict) else {**base, "space": data})
    except SpecError:
        pass


@pytest.mark.parametrize("wrong", ["space: {%s}", "%s", "search: {enqueue: [%s]}", "prior: {%s}"])
def test_of_very_many_problems_the_first_are_told(wrong):
    """Each costs a search for the name that was meant, which a server would do for whoever asks."""
    names = [f"learnin_rat{number}: 1" for number in range(2000)]
    lines = {"%s": "\n".join(names), "search: {enqueue: [%s]}": wrong % ", ".join(f"{{{name}}}" for name in names)}
    text = lines.get(wrong, wrong % ", ".join(names))
    head = "name: x\nobjective: {dataset: synthetic}\n" + ("" if "space" in wrong else "space: {lr: 0.1}\n")
    with pytest.raises(SpecError) as caught:
        parse_spec(head + text)
    assert len(caught.value.problems) == 101
    assert "that is not all: more than 100 things are wrong" in str(caught.value)
