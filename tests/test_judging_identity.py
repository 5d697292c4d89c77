"""What makes a model the same model: every file that shapes an answer, and what runs it; never equal outputs alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.judged import grades, judged_suite, put_judge, write_outputs, write_rows
from support.stub_endpoint import StubEndpoint
from support.tiny_tasks import LABELS, save_tiny

from edgetune.data.example import Message
from edgetune.errors import ModelError
from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.results.evaluate import answer_key
from edgetune.judging.run import judge_model
from edgetune.judging.settings import Settings
from edgetune.judging.subjects.folder import FolderSubject, open_folder
from edgetune.judging.subjects.gguf import open_gguf
from edgetune.judging.suites import identity
from edgetune.judging.suites.identity import hash_file, hash_gguf
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.judge_file import LocalJudge, judge_hash
from edgetune.judging.suites.suite import Suite, load_suite

Change = Callable[[Path], object]


def write_json(file: Path, **changes: Any) -> None:
    settings = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**settings, **changes}))


def put(name: str, content: bytes | str = b"x") -> Change:
    """A change that adds a file, or writes over one."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def set_json(name: str, **changes: Any) -> Change:
    return lambda folder: write_json(folder / name, **changes)


def fingerprint(reference: Path) -> str:
    return open_folder(str(reference)).fingerprint


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("models") / "base", noise=0.3)


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base.parent / "adapter"
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"])).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.fixture
def own_adapter(adapter: Path, base: Path, tmp_path: Path) -> Path:
    """The adapter on a copy of its base, both in folders of this test."""
    moved = Path(shutil.copytree(base, tmp_path / "moved-base"))
    copied = Path(shutil.copytree(adapter, tmp_path / "moved-adapter"))
    write_json(copied / "adapter_config.json", base_model_name_or_path=str(moved))
    return copied


def make_run(adapter: Path, folder: Path, base: dict[str, Any], **data: Any) -> Path:
    """A run directory as training leaves it, with as much in it as is read here."""
    folder.mkdir()
    shutil.copytree(adapter, folder / "adapter")
    model = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    recipe = {"name": "tiny", "task": "chat", "base": {"model": model, **base}, "data": {"template": "chat", **data}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def generate_suite(folder: Path, texts: tuple[str, ...] = ("the sun", "some cake"), **settings: Any) -> Suite:
    write_rows(folder / "items.jsonl", [{"prompt": text, "reference": "sun"} for text in texts])
    values = {"name": "s", "task": "generate", "data": [{"source": "items.jsonl", "format": "prompt"}], **settings}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"generation": {"max_tokens": 8}, **values}))
    return load_suite(str(folder / "suite.yaml"))


def texts(answers: Any) -> list[str | None]:
    return [answer.text for answer in answers]


def test_an_edited_chat_template_is_answered_anew_and_is_another_model(tmp_path: Path, folder: Path) -> None:
    suite = generate_suite(tmp_path)
    judge_model(suite, folder, out=tmp_path / "before")
    before = judge_model(suite, folder)
    template = folder / "chat_template.jinja"
    template.write_text(f"much rain {template.read_text()}")
    after = judge_model(suite, folder, tmp_path / "before" / "report.json")
    fresh = judge_model(suite, folder, settings=Settings(use_cache=False))
    assert texts(after.candidate.answers) == texts(fresh.candidate.answers) != texts(before.candidate.answers)
    assert after.verdict is not None
    assert not after.verdict.same_model


def test_the_same_folder_again_is_the_same_model_and_is_not_asked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = generate_suite(tmp_path)
    judge_model(suite, folder, out=tmp_path / "before")
    moved = folder.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(FolderSubject, "answers", lambda *_: pytest.fail("nobody was to be asked"))
    again = judge_model(suite, moved, tmp_path / "before" / "report.json")
    assert again.verdict is not None
    assert again.verdict.same_model
    assert again.verdict.outcome is Outcome.PASS
    assert not any("prove" in note for note in again.notes)


@pytest.mark.parametrize(
    "change",
    [
        put("chat_template.jinja", "{{ messages }}"),
        put("additional_chat_templates/tools.jinja"),
        set_json("tokenizer_config.json", add_bos_token=True),
        set_json("tokenizer.json", truncation=None, version="1.1"),
        set_json("generation_config.json", eos_token_id=[2, 5]),
        set_json("config.json", rms_norm_eps=0.1),
        put("special_tokens_map.json", "{}"),
        put("added_tokens.json", "{}"),
        put("tokenizer.model"),
        put("vocab.txt"),
        put("modeling_own.py"),
        put("what_nobody_has_heard_of.dat"),
        put("model-00002-of-00002.safetensors"),
        lambda folder: (folder / "generation_config.json").unlink(),
        lambda folder: (folder / "chat_template.jinja").rename(folder / "other.jinja"),
    ],
)
def test_any_file_that_may_shape_an_answer_makes_another_model(folder: Path, change: Change) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "names",
    [
        ("README.md", "LICENSE", "LICENSE.txt", "NOTICE", "card.png", ".gitattributes", ".DS_Store"),
        (".git/HEAD", ".cache/huggingface/download/x.metadata", "__pycache__/x.pyc"),
        ("training_args.bin", "trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "train.log"),
        ("judged/report.json", "judged/page.html", "again/recipe.yaml", "env/pyvenv.cfg", "best/trainer_state.json"),
        ("checkpoint-500/model.safetensors", "runs/Nov29/events.out.tfevents.1", "wandb/x.json", "report/report.json"),
        ("pytorch_model.bin", "consolidated.safetensors", "tf_model.h5", "model-q4.gguf", "original/params.json"),
    ],
)
def test_what_nobody_reads_changes_no_model(folder: Path, names: tuple[str, ...]) -> None:
    before = fingerprint(folder)
    for name in names:
        put(name)(folder)
    assert fingerprint(folder) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5"])
def test_weights_of_any_name_count_where_there_are_no_safetensors(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    put(name, b"one")(folder)
    before = fingerprint(folder)
    put(name, b"two")(folder)
    assert fingerprint(folder) != before


def test_links_into_a_hub_cache_are_the_files_that_they_lead_to(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = Path(shutil.copy(file, tmp_path / f"blob{number}"))
        (snapshot / file.name).symlink_to(blob)
    (snapshot / "loop").symlink_to(snapshot, target_is_directory=True)
    assert fingerprint(snapshot) == fingerprint(folder)


def test_a_file_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    subject = open_folder(str(folder))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"model/.*: cannot be read \(Permission denied\); check its permissions"):
        _ = subject.fingerprint


def test_an_adapter_is_the_same_wherever_it_and_its_base_lie(adapter: Path, own_adapter: Path) -> None:
    assert fingerprint(own_adapter) == fingerprint(adapter)


@pytest.mark.parametrize(
    "change",
    [
        set_json("adapter_config.json", lora_alpha=64),
        set_json("adapter_config.json", use_rslora=True),
        put("chat_template.jinja", "{{ messages }}"),
        set_json("tokenizer_config.json", padding_side="right"),
        put("adapter_model.safetensors", b"other weights"),
        put("../moved-base/config.json", '{"model_type": "llama", "rms_norm_eps": 0.1}'),
        put("../moved-base/model.safetensors", b"other weights"),
        put("../moved-base/chat_template.jinja", b"{{ messages }}"),
    ],
)
def test_an_adapters_settings_tokenizer_and_base_belong_to_it(own_adapter: Path, change: Change) -> None:
    before = fingerprint(own_adapter)
    change(own_adapter)
    assert fingerprint(own_adapter) != before


def test_a_run_without_special_settings_is_its_adapter(own_adapter: Path, tmp_path: Path) -> None:
    defaults = {"quantize": "none", "double_quantization": True, "dtype": "auto", "head": "lm", "revision": None}
    run = make_run(own_adapter, tmp_path / "run", defaults)
    assert open_folder(str(run)).kind == "run"
    assert fingerprint(run) == fingerprint(own_adapter)
    assert fingerprint(run.rename(tmp_path / "renamed")) == fingerprint(own_adapter)


def test_how_a_run_loads_its_base_makes_another_model(own_adapter: Path, tmp_path: Path) -> None:
    bases: list[dict[str, Any]] = [
        {},
        {"quantize": "nf4"},
        {"quantize": "nf4", "double_quantization": False},
        {"quantize": "int8"},
        {"dtype": "bfloat16"},
    ]
    prints = [fingerprint(make_run(own_adapter, tmp_path / f"run{n}", base)) for n, base in enumerate(bases)]
    head = {"head": "classification"}
    for number, labels in enumerate((LABELS, LABELS[::-1])):
        prints.append(fingerprint(make_run(own_adapter, tmp_path / f"head{number}", head, labels=list(labels))))
    prints.append(fingerprint(make_run(own_adapter, tmp_path / "alpaca", {}, template="alpaca")))
    assert len(set(prints)) == len(prints)


def test_a_split_gguf_is_all_of_its_parts(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{part}-of-00002.gguf" for part in (1, 2))
    first.write_bytes(b"GGUF one")
    second.write_bytes(b"GGUF two")
    subject = open_gguf(str(first))
    before, judge = subject.fingerprint, judge_hash(LocalJudge(name="j", model=str(first)))
    assert subject.size_bytes == 16
    assert open_gguf(str(second)).fingerprint == before
    second.write_bytes(b"GGUF TWO")
    assert open_gguf(str(first)).fingerprint != before
    assert judge_hash(LocalJudge(name="j", model=str(first))) != judge
    whole = tmp_path / "m.gguf"
    whole.write_bytes(b"GGUF")
    assert hash_gguf(whole) == hashlib.sha256(b"GGUF").hexdigest()


def test_a_file_is_hashed_once_and_again_when_it_has_changed_whatever_its_time_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    digest = hashlib.file_digest

    def counted(stream: Any, name: str) -> Any:
        read.append(1)
        return digest(stream, name)

    monkeypatch.setattr(identity.hashlib, "file_digest", counted)
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    changed = file.stat()
    assert hash_file(file) == hash_file(file) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 2, "a file of this moment may still change within the clock's step"
    monkeypatch.setattr(identity, "SETTLED_SECONDS", -1.0)
    assert hash_file(file) == hash_file(file) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 3
    file.write_bytes(b"two")
    os.utime(file, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    assert hash_file(file) == hashlib.sha256(b"two").hexdigest()


def key(item: Item, suite: Suite, runtime: dict[str, str] | None = None) -> str:
    return answer_key(suite, item, "folder", "f", runtime or {})


def test_what_runs_a_model_belongs_to_its_answers(
    tmp_path: Path, own_adapter: Path, monkeypatch: pytest.MonkeyPatch, smollm2_gguf: Path
) -> None:
    plain = open_folder(str(own_adapter)).runtime
    assert {"device", "dtype", "torch", "transformers", "tokenizers", "jinja2", "peft"} == set(plain)
    quantized = open_folder(str(make_run(own_adapter, tmp_path / "run", {"quantize": "nf4", "dtype": "bfloat16"})))
    assert quantized.runtime["dtype"] == "torch.bfloat16"
    assert "bitsandbytes" in quantized.runtime
    assert set(open_gguf(str(smollm2_gguf)).runtime) == {"llama-cpp-python", "jinja2"}
    suite, item = generate_suite(tmp_path), Item("1", "x:1", "q", (Message("user", "q"),))
    keys = {key(item, suite, {**plain, part: "another"}) for part in plain}
    assert len(keys | {key(item, suite, dict(plain))}) == len(plain) + 1


def test_equal_questions_have_answers_of_their_own_where_their_ids_draw_the_seeds(tmp_path: Path) -> None:
    one, other = (Item(name, f"x:{name}", "q", (Message("user", "q"),)) for name in "12")
    greedy, drawn = generate_suite(tmp_path), generate_suite(tmp_path, generation={"temperature": 0.7})
    assert key(one, greedy) == key(other, greedy)
    assert key(one, drawn) != key(other, drawn)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("same_file", [False, True])
def test_equal_outputs_do_not_prove_one_model(tmp_path: Path, stored: bool, same_file: bool) -> None:
    suite = generate_suite(tmp_path, metrics=["exact_match"])
    old = write_outputs(tmp_path / "old.jsonl", ["sun", "mud"])
    new = old if same_file else write_outputs(tmp_path / "new.jsonl", ["sun", "mud"])
    baseline = old
    if stored:
        judge_model(suite, old, out=tmp_path / "old")
        baseline = tmp_path / "old" / "report.json"
    judgement = judge_model(suite, new, baseline)
    assert judgement.verdict is not None
    assert judgement.verdict.outcome is Outcome.INCONCLUSIVE
    assert not judgement.verdict.same_model
    assert "same model" not in judgement.verdict.reason
    assert "Equal outputs do not prove that one model wrote them" in judgement.notes[0]


def test_equal_outputs_pass_on_enough_items_like_those_of_different_models(tmp_path: Path) -> None:
    suite = generate_suite(tmp_path, tuple(f"q {n}" for n in range(300)), metrics=["exact_match"])
    outputs = [write_outputs(tmp_path / f"{name}.jsonl", ["sun"] * 300) for name in ("new", "old")]
    judgement = judge_model(suite, *outputs)
    assert judgement.verdict is not None
    assert (judgement.verdict.outcome, judgement.verdict.same_model) == (Outcome.PASS, False)


def test_an_endpoint_is_asked_for_both_sides_and_proves_no_model(tmp_path: Path) -> None:
    suite = generate_suite(tmp_path, metrics=["exact_match"])
    with StubEndpoint(lambda body: "sun") as stub:
        address = f"{stub.url}#small"
        judgement = judge_model(suite, address, address)
        assert len(stub.requests) == 4
        judge_model(suite, address, out=tmp_path / "old")
        later = judge_model(suite, address, tmp_path / "old" / "report.json")
    for each in (judgement, later):
        assert each.verdict is not None
        assert (each.verdict.outcome, each.verdict.same_model) == (Outcome.INCONCLUSIVE, False)
        assert "does not prove that one model answered" in each.notes[0]


def test_a_report_of_the_format_before_serves_as_baseline_and_proves_no_model(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = generate_suite(tmp_path, metrics=["exact_match"])
    judge_model(suite, folder, out=tmp_path / "old")
    report = tmp_path / "old" / "report.json"
    weights_alone = hashlib.sha256(hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()).hexdigest()
    document = json.loads(report.read_text())
    document["format"] = "edgetune judge report 2"
    document["candidate"]["fingerprint"] = weights_alone
    report.write_text(json.dumps(document))
    judgement = judge_model(suite, folder, report)
    assert judgement.verdict is not None
    assert (judgement.verdict.outcome, judgement.verdict.same_model) == (Outcome.INCONCLUSIVE, False)
    assert "fingerprint covers the weights only" in " ".join(capsys.readouterr().err.split())


def test_grades_of_the_format_before_are_given_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some were read at the wrong place of a verdict; the answers are still right."""
    suite = judged_suite(tmp_path / "suite", items=20)
    outputs = write_outputs(tmp_path / "old.jsonl", [f"answer {n}" for n in range(20)])
    report = tmp_path / "old" / "report.json"
    asked = put_judge(monkeypatch, lambda identity: grades(4))
    judge_model(suite, outputs, out=report.parent)
    fresh = judge_model(suite, outputs, report)
    asked.clear()
    document = json.loads(report.read_text())
    document["format"] = "edgetune judge report 2"
    for grade in document["candidate"]["grades"]:
        grade["scores"] = dict.fromkeys(grade["scores"], 1.2)
    report.write_text(json.dumps(document))
    judgement = judge_model(suite, outputs, report)
    assert len(asked) == 20 + 20 + 20, "both sides and the control"
    assert judgement.baseline is not None
    assert fresh.baseline is not None
    assert judgement.baseline.metrics == fresh.baseline.metrics


@pytest.mark.parametrize(("kind", "reread"), [("gguf", True), ("endpoint", True), ("outputs", False)])
def test_labels_of_a_stored_baseline_are_read_by_the_rules_of_today(tmp_path: Path, kind: str, reread: bool) -> None:
    """Else a baseline whose labels an earlier version missed would be easy to beat."""
    rows = [{"text": f"text {n}", "label": LABELS[n % 2]} for n in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    source = {"source": "rows.jsonl", "format": "text-label"}
    values = {"name": "c", "task": "classify", "data": [source], "labels": list(LABELS), "prompt": "{text}"}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**values, "scoring": "generate"}))
    suite = load_suite(str(tmp_path / "suite.yaml"))
    outputs = write_outputs(tmp_path / "o.jsonl", [row["label"] for row in rows])
    report = tmp_path / "old" / "report.json"
    judge_model(suite, outputs, out=report.parent)
    document = json.loads(report.read_text())
    document["candidate"]["kind"] = kind
    for answer in document["candidate"]["answers"][:10]:
        answer["predicted"] = None
    report.write_text(json.dumps(document))
    baseline = judge_model(suite, outputs, report).baseline
    assert baseline is not None
    assert baseline.classification is not None
    assert baseline.metrics["accuracy"].value == baseline.classification.accuracy == (1.0 if reread else 0.5)
