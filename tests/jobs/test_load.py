import json
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import load_job, parse_job
from agentrft.losses import PolicyGradientLoss

GOOD = """\
model: smollm2-135m-instruct
method:
  type: reinforcement
  reinforcement:
    grader: {type: string_check, name: exact, operation: eq, input: "{{sample.output_text}}", reference: "{{item.a}}"}
    hyperparameters:
      batch_size: 4
data:
  train: train.jsonl
  validation: validation.jsonl
training:
  lora: null
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def refused(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_job(path)
    return caught.value


def test_a_job_is_read_with_defaults_and_its_folder(tmp_path: Path) -> None:
    spec, base_dir = load_job(written(tmp_path, GOOD))
    assert base_dir == tmp_path
    assert spec.method.reinforcement is not None
    assert spec.method.reinforcement.hyperparameters.batch_size == 4
    assert spec.method.reinforcement.hyperparameters.eval_interval == 4
    assert spec.training.lora is None
    assert spec.training.loss.mask_delta == 0.2
    assert spec.agent.limits.max_turns == 8


def test_numbers_with_a_bare_exponent_are_numbers(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-3 (without a dot) as text; people write it all the time.
    spec, _ = load_job(written(tmp_path, GOOD.replace("batch_size: 4", "learning_rate: 3e-4")))
    assert spec.method.reinforcement is not None
    assert spec.method.reinforcement.hyperparameters.learning_rate == 3e-4


def test_what_is_stored_reads_back_the_same(tmp_path: Path) -> None:
    spec, _ = load_job(written(tmp_path, GOOD))
    assert parse_job(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("old", "new", "words", "param"),
    [
        (
            "batch_size: 4",
            "batchsize: 4",
            ["line 7", "unknown key `batchsize`", "under `method.reinforcement.hyperparameters`", "`batch_size`?"],
            "method.reinforcement.hyperparameters.batchsize",
        ),
        ("operation: eq", "operaton: eq", ["line 5", "`operation`?"], "method.reinforcement.grader.operaton"),
        ("model: smollm2-135m-instruct\n", "", ["`model` is missing", "smollm2-135m-instruct"], "model"),
        ("batch_size: 4", "batch_size: many", ["line 7", "integer", "'many'"], None),
        ("batch_size: 4", "batch_size: 0", ["line 7", "greater than or equal to 1", "got 0"], None),
        ("type: string_check", "type: strng_check", ["line 5", "`string_check`", "`strng_check`"], None),
        ("type: reinforcement", "type: ppo", ["line 3", "'dpo' or 'reinforcement'", "'ppo'"], "method.type"),
        ("training:\n  lora: null", "training:\n  lora: 16", ["line 12", "training.lora"], "training.lora"),
        ("  train: train", "  splits: {test: a}\n  train: train", ["splits may not be called test"], "data"),
        (
            "training:",
            "optimizer: adam\ntraining:",
            ["line 11", "unknown key `optimizer`", "Expected one of: model"],
            None,
        ),
    ],
)
def test_mistakes_are_named_with_line_and_next_step(
    tmp_path: Path, old: str, new: str, words: list[str], param: str | None
) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    error = refused(path)
    for word in (str(path), *words):
        assert word in error.message
    if param:
        assert error.param == param


def test_reinforcement_without_its_section_says_so(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "model: m\nmethod: {type: reinforcement}\ndata: {}\n"))
    assert "no `reinforcement` section" in error.message
    assert "line 2" in error.message


def test_several_mistakes_come_together(tmp_path: Path) -> None:
    error = refused(written(tmp_path, GOOD.replace("batch_size", "batchsize").replace("train:", "trian:", 1)))
    assert len(error.message.splitlines()) == 2


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    error = refused(written(tmp_path, GOOD + "".join(f"k{n}: 1\n" for n in range(12))))
    assert error.message.splitlines()[-1] == "… and 4 more."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [unclosed\ndata: {}", ["line 2", "not valid YAML"]),
        ("model: a: b", ["line 1", "not valid YAML"]),
        ("", ["empty"]),
        ("- a\n- b", ["expected a mapping", "a list"]),
        ("model: a\nmodel: b\ndata: {}", ["line 2", "`model` is given twice", "line 1"]),
        ("model: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
    ],
)
def test_what_is_no_job_document_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    error = refused(written(tmp_path, text))
    for word in words:
        assert word in error.message


def test_a_missing_file_names_where_it_looked(tmp_path: Path) -> None:
    error = refused(tmp_path / "nothing.yaml")
    assert "no such file" in error.message
    assert str(tmp_path) in error.message
    assert error.code == "missing_file"


def test_a_folder_hints_at_the_job_inside(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    assert str(tmp_path / "job.yaml") in refused(tmp_path).message


def test_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"model: \xff\xfe")
    assert "UTF-8" in refused(path).message


# ---- JSON is not quite YAML


def test_a_json_job_means_what_json_says(tmp_path: Path) -> None:
    spec, _ = load_job(written(tmp_path, GOOD))
    document = spec.model_dump(mode="json")
    document["agent"]["system"] = "Be brief \U0001f44d \t."
    for indent in (None, 1, "\t"):
        again, _ = load_job(written(tmp_path, json.dumps(document, indent=indent)))
        assert again.agent.system == "Be brief \U0001f44d \t."


def test_a_mistake_in_a_json_job_is_named_by_its_line(tmp_path: Path) -> None:
    spec, _ = load_job(written(tmp_path, GOOD))
    document = spec.model_dump(mode="json")
    document["dta"] = {}
    text = json.dumps(document, indent="\t")
    line = next(n for n, found in enumerate(text.splitlines(), 1) if '"dta"' in found)
    assert f"job.yaml line {line}: unknown key `dta`" in refused(written(tmp_path, text)).message


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('suffix: "\\ud83d"\n' + GOOD, "invalid_job", "lone surrogate"),
        ("suffix: a\x07b\n" + GOOD, "invalid_yaml", "not valid YAML"),
        ("suffix: 2024-02-30\n" + GOOD, "invalid_yaml", "not valid YAML"),
        ("agent: &a {system: *a}\n" + GOOD, "invalid_yaml", "contains itself"),
        (GOOD.replace("train.jsonl", '""'), "invalid_job", "data.train"),
    ],
)
def test_what_no_loader_can_read_is_refused(tmp_path: Path, text: str, code: str, words: str) -> None:
    error = refused(written(tmp_path, text))
    assert words in error.message
    assert error.code == code


def test_a_preset_refuses_what_it_does_not_use_and_names_its_own_options():
    document = {"model": "m", "data": {"train": "a.jsonl"}, "training": {"loss": {"type": "grpo", "weight_cap": 3}}}
    with pytest.raises(UserError) as caught:
        parse_job(document)
    assert caught.value.param == "training.loss.weight_cap"
    assert "Expected one of: kl_coef, clip_low, clip_high, correction, type." in str(caught.value)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"loss": {"type": "rloo"}, "credit": "group_mean"}, "with credit `leave_one_out`, got `group_mean`"),
        ({"loss": {"type": "grpo", "kl_coef": 0.1}, "lora": None}, "got `lora: null`"),
    ],
)
def test_a_loss_must_have_what_it_needs(training, said):
    with pytest.raises(UserError, match=said):
        parse_job({"model": "m", "data": {"train": "a.jsonl"}, "training": training})


def test_a_loss_without_a_type_is_the_default_preset():
    document = {"model": "m", "data": {"train": "a.jsonl"}, "training": {"loss": {"mask_delta": 0.1}}}
    assert parse_job(document).training.loss == PolicyGradientLoss(mask_delta=0.1)
