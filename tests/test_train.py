"""Training: the loss is the model's own, and a run is what its directory says."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.collate import collate

from edgetune.data.tokenize import TokenizedExample
from edgetune.errors import DataError, Interrupted, NumericalError, OutputError, RecipeError
from edgetune.models.families import families_with
from edgetune.recipe.load import load_recipe
from edgetune.recipe.schema import Recipe
from edgetune.training.objectives.packing import (
    can_pack,
    pack_batch,
    pad_batch,
    use_packed_attention,
)
from edgetune.training.objectives.supervised import supervised_nll
from edgetune.training.run import train
from edgetune.training.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_plots")

TEXTS = ["good", "bad news", "what a long and winding day", "fine by me", "never again", "so so", "yes", "no, thanks"]


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_llama: Path):
    """Writes a small classification recipe on the tiny Llama and loads it with overrides."""
    rows = [{"text": text, "label": ("up", "down")[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = {
        "name": "tiny",
        "task": "classify",
        "base": {"model": str(tiny_llama), "dtype": "float32"},
        "data": {
            "train": [{"source": "rows.jsonl", "format": "text-label"}],
            "labels": ["up", "down"],
            "prompt": "Up or down? {text}",
        },
        "method": {"type": "lora", "rank": 4, "alpha": 8},
        "train": {"batch_size": 2, "max_steps": 4, "learning_rate": 1e-2},
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")

    def load(*overrides: str) -> Recipe:
        return load_recipe(str(file), overrides)

    return load


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in RunDirectory(run).read_metrics() if "loss" in row]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def load_tiny(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("shared", [0, 7])
@pytest.mark.parametrize("layout", ["padded", "packed", "packed, shared prompt"])
def test_the_loss_and_its_gradient_are_those_of_transformers(tiny_llama: Path, layout: str, shared: int):
    torch.manual_seed(1)
    model = load_tiny(tiny_llama)
    examples = make_examples(shared, completions=(5, 5, 1))
    expected = model(**collate(examples, pad_token_id=2)).loss
    expected.backward()
    reference = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    if layout == "padded":
        batch = pad_batch(examples, pad_token_id=2)
    else:
        use_packed_attention(model)
        batch = pack_batch(examples, share_prompt=layout == "packed, shared prompt")
        assert batch["layout"].shared == (shared if layout == "packed, shared prompt" else 0)
    total, count = supervised_nll(model, model.get_output_embeddings(), batch)
    (total / count).backward()

    assert count == 5 + 5 + 1
    assert batch["tokens"] == sum(len(example.input_ids) for example in examples)
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference[name], rtol=1e-4, atol=2e-6)


def make_examples(shared: int, completions: tuple[int, ...]) -> list[TokenizedExample]:
    """Random examples that begin with the same `shared` tokens; of each the last tokens are supervised."""
    beginning = torch.randint(20, 4000, (shared,)).tolist()
    examples = []
    for number, supervised in enumerate(completions):
        rest = [100 + number, *torch.randint(20, 4000, (3 + 4 * number + supervised,)).tolist()]
        ids = beginning + rest
        cut = len(ids) - supervised
        examples.append(TokenizedExample(tuple(ids), tuple([-100] * cut + ids[cut:])))
    return examples


@pytest.mark.parametrize("family", families_with("packs"))
def test_packing_changes_no_loss_in_any_family_that_it_is_used_for(family: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        family, **sizes, num_key_value_heads=2, head_dim=8, vocab_size=4000, pad_token_id=0, sliding_window=None
    )
    assert can_pack(config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    examples = make_examples(9, completions=(2, 6, 3, 1))
    expected = float(model(**collate(examples, pad_token_id=0)).loss)
    use_packed_attention(model)
    total, count = supervised_nll(model, model.get_output_embeddings(), pack_batch(examples, share_prompt=True))
    assert (total / count).item() == pytest.approx(expected, rel=1e-5)


def test_a_model_with_windowed_attention_is_not_packed():
    from transformers import AutoConfig

    assert not can_pack(AutoConfig.for_model("mistral", sliding_window=4096))
    assert not can_pack(AutoConfig.for_model("gemma2"))


def test_a_shared_prompt_ends_before_the_token_that_predicts_an_answer():
    first, second = (TokenizedExample((5, 6, 7, answer), (-100, -100, -100, answer)) for answer in (8, 9))
    batch = pack_batch([first, second], share_prompt=True)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 7, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 8, -100, 9, -100]]


def test_a_batch_without_supervised_tokens_is_an_error(tiny_llama: Path):
    model = load_tiny(tiny_llama)
    batch = pad_batch([TokenizedExample((5, 6, 7), (-100, -100, -100))], pad_token_id=2)
    with pytest.raises(DataError, match="no supervised token"):
        supervised_nll(model, model.get_output_embeddings(), batch)


def test_accumulating_small_batches_equals_one_large_batch(write_recipe, tmp_path: Path):
    # SGD, because Adam turns the sign of a vanishing gradient into a whole step.
    settings = ["train.max_steps=3", "train.optimizer=sgd", "train.learning_rate=0.5"]
    train(write_recipe("train.batch_size=8", *settings), tmp_path / "large")
    train(write_recipe("train.batch_size=1", "train.accumulate=8", *settings), tmp_path / "small")
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)
    for name, tensor in adapter(tmp_path / "large").items():
        torch.testing.assert_close(adapter(tmp_path / "small")[name], tensor, rtol=1e-3, atol=1e-5)


def test_the_run_directory_tells_what_happened(write_recipe, tmp_path: Path):
    recipe = write_recipe(
        f"data.eval=[{{source: {tmp_path / 'rows.jsonl'}, format: text-label}}]",
        "train.epochs=2",
        "train.max_steps=null",
    )
    run = tmp_path / "run"
    summary = train(recipe, run)
    written = json.loads((run / "summary.json").read_text())
    assert written == summary.model_dump()
    assert load_recipe(str(run / "recipe.yaml")) == recipe
    assert (written["steps"], written["epochs"]) == (8, 2.0)
    # Rank 4 on 7 projections of 2 layers: (in + out) · 4 each.
    widths = [(256, 256), (256, 128), (256, 128), (256, 256), (256, 512), (256, 512), (512, 256)]
    assert written["trainable_parameters"] == 2 * 4 * sum(a + b for a, b in widths)
    assert written["supervised_tokens"] == 2 * sum(row != -100 for row in _labels(recipe))
    assert written["final_train_loss"] == losses(run)[-1] < losses(run)[0]
    assert written["eval_loss"] == pytest.approx(RunDirectory(run).read_metrics()[-1]["eval_loss"])
    assert {"adapter_config.json", "chat_template.jinja", "tokenizer.json"} <= {
        f.name for f in (run / "adapter").iterdir()
    }
    assert (
        json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == recipe.base.model
    )
    assert f"{written['trainable_parameters']:,}" in (run / "README.md").read_text()


def _labels(recipe: Recipe) -> list[int]:
    from edgetune.training.prepare import prepare

    return [label for example in prepare(recipe).train.examples for label in example.labels]


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = write_recipe("train.max_steps=6", "method.dropout=0.3")
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        from edgetune.training.telemetry import Telemetry

        log = Telemetry.log

        def log_then_interrupt(self: Telemetry, *, step: int, epoch: float, values: dict[str, float]) -> None:
            log(self, step=step, epoch=epoch, values=values)
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(Telemetry, "log", log_then_interrupt)
        with pytest.raises(Interrupted, match=r"after step [23] of 6.*--resume"):
            train(recipe, tmp_path / "parts")
    assert not (tmp_path / "parts" / "summary.json").exists()
    summary = train(load_recipe(str(tmp_path / "parts" / "recipe.yaml")), tmp_path / "parts", resume=True)
    assert summary.steps == 6
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert summary.train_tokens == json.loads((tmp_path / "whole" / "summary.json").read_text())["train_tokens"]
    for name, tensor in adapter(tmp_path / "whole").items():
        assert torch.equal(adapter(tmp_path / "parts")[name], tensor), name


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_way_out(write_recipe, tmp_path: Path):
    recipe = write_recipe("train.optimizer=sgd", "train.learning_rate=1e30", "train.max_grad_norm=1e30")
    with pytest.raises(NumericalError, match=r"loss is (nan|inf) at step [234].*train.learning_rate"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_full_disk_while_training_is_one_clear_error(write_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgetune.training.trainer.ObjectiveTrainer._save", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train(write_recipe("train.save_every=2"), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert RunDirectory(tmp_path / "run").last_checkpoint() is None


def test_a_resumed_run_counts_tokens_that_no_logged_step_told(write_recipe, tmp_path: Path):
    recipe = write_recipe("train.max_steps=4", "train.save_every=2", "train.log_every=100")
    train(recipe, tmp_path / "run")
    assert [row["step"] for row in RunDirectory(tmp_path / "run").read_metrics()] == [1, 2, 4]


def test_resume_refuses_a_changed_recipe_and_shows_the_change(write_recipe, tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.start(write_recipe())
    with pytest.raises(RecipeError, match=r"train.learning_rate was 0.01 and is 0.5"):
        train(write_recipe("train.learning_rate=0.5"), run.path, resume=True)


def test_resume_passes_over_a_half_written_checkpoint(write_recipe, tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.start(write_recipe())
    (run.checkpoints / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(OutputError, match="no complete checkpoint"):
        train(write_recipe(), run.path, resume=True)


def test_a_run_that_exists_is_not_overwritten(write_recipe, tmp_path: Path):
    run = RunDirectory(tmp_path / "run")
    run.start(write_recipe())
    with pytest.raises(OutputError, match="--force"):
        train(write_recipe(), run.path)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is a folder that nobody can write to, of Linux")
def test_a_place_that_takes_no_files_is_one_clear_error(write_recipe):
    with pytest.raises(OutputError, match=r"/proc: nothing can be written here \(.*; choose another --out"):
        train(write_recipe(), Path("/proc/run"))


def test_evaluation_rows_that_were_trained_on_are_told(edgetune_command, write_recipe, tmp_path: Path):
    write_recipe()
    file, source = tmp_path / "tiny.yaml", tmp_path / "rows.jsonl"
    evaluation = f"data.eval=[{{source: {source}, format: text-label, split: 'train[:3]'}}]"
    seen = edgetune_command("train", file, "--out", tmp_path / "run", "-s", evaluation, "-s", "train.max_steps=1")
    assert seen.exit_code == 0
    assert "warning: 3 of 3 evaluation rows are also in the training data" in seen.stderr
    held_out = edgetune_command(
        "train", file, "--out", tmp_path / "apart", "-s", "data.holdout=2", "-s", "train.max_steps=1"
    )
    assert "evaluation rows are also in the training data" not in held_out.stderr


def test_the_next_step_is_one_that_the_run_can_take(edgetune_command, write_recipe, tmp_path: Path):
    write_recipe()
    for override, expected in (
        ("method={type: prompt, virtual_tokens: 2}", "next: load {run}/adapter with PEFT"),
        ("base.head=classification", "next: edgetune merge {run}"),
    ):  # the card does not name commands that would refuse the run either
        run = tmp_path / expected.split()[2]
        seen = edgetune_command(
            "train", tmp_path / "tiny.yaml", "--out", run, "-s", override, "-s", "train.max_steps=1"
        )
        assert " ".join(seen.stdout.split()).count(" ".join(expected.format(run=run).split())) == 1, seen.stdout
        assert "edgetune export` take" not in (run / "README.md").read_text(encoding="utf-8")


def test_force_does_not_delete_a_folder_that_is_no_run(write_recipe, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    with pytest.raises(OutputError, match="not a run directory"):
        train(write_recipe(), tmp_path / "thesis", force=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "precious"


def test_bad_input_leaves_an_existing_run_alone_even_with_force(write_recipe, tmp_path: Path):
    train(write_recipe("train.max_steps=1"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"method.targets names qkv_proj.*q_proj"):
        train(write_recipe("method.targets=[qkv_proj]"), tmp_path / "run", force=True)
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["base.quantize=nf4"],
        ["base.quantize=nf4", "train.gradient_checkpointing=true"],
        ["train.gradient_checkpointing=true"],
        [
            "method={type: ia3, feedforward: [down_proj], "
            "targets: [q_proj, k_proj, o_proj, gate_proj, up_proj, down_proj]}"
        ],
        ["method.dora=true"],
        ["base.dtype=bfloat16"],
    ],
    ids=["qlora", "qlora-checkpointing", "checkpointing", "ia3", "dora", "bfloat16"],
)
def test_every_method_learns_on_the_cpu(write_recipe, tmp_path: Path, overrides: list[str]):
    # Every step sees all examples, so that the losses can be compared.
    train(write_recipe("train.max_steps=5", "train.batch_size=8", *overrides), tmp_path / "run")
    first, *_, last = losses(tmp_path / "run")
    assert last < first - 0.1


def test_qlora_keeps_its_base_in_four_bits(write_recipe):
    from bitsandbytes.nn import Linear4bit

    from edgetune.training.backends.transformers import load_adapted_model
    from edgetune.training.prepare import prepare

    recipe = write_recipe("base.quantize=nf4")
    model = load_adapted_model(recipe, prepare(recipe))
    base = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer
    assert isinstance(base, Linear4bit)
    assert base.weight.quant_state.quant_type == "nf4"
    assert base.weight.quant_state.nested


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.train.0.source=nowhere.jsonl", "nowhere.jsonl"),
        ("base.model=./nowhere", "no such model folder"),
        ("base.model=nowhere.gguf", "no such GGUF file"),
        ("data.max_length=8", "all 8 examples are longer than max_length, 8 tokens"),
        ("data.labels=[up, sideways]", "down"),
    ],
)
def test_bad_input_ends_with_one_line_and_no_run(
    edgetune_command, write_recipe, tmp_path: Path, override: str, expected: str
):
    write_recipe()
    seen = edgetune_command("train", tmp_path / "tiny.yaml", "-s", override, "--out", tmp_path / "run")
    assert seen.exit_code == 2
    assert expected in seen.stderr
    assert "Traceback" not in seen.stderr
    assert not (tmp_path / "run").exists()


def test_a_text_file_named_gguf_is_no_base(edgetune_command, write_recipe, tmp_path: Path):
    write_recipe()
    fake = tmp_path / "fake.gguf"
    fake.write_text("hello")
    seen = edgetune_command("train", tmp_path / "tiny.yaml", "-s", f"base.model={fake}", "--out", tmp_path / "run")
    assert seen.exit_code == 2
    assert "is not a GGUF file" in seen.stderr


def test_the_command_reports_and_names_the_next_step(edgetune_command, write_recipe, tmp_path: Path):
    write_recipe()
    seen = edgetune_command("train", tmp_path / "tiny.yaml", "-s", "train.max_steps=1", "--out", tmp_path / "run")
    assert seen.exit_code == 0
    assert f"next: edgetune export {tmp_path / 'run'}" in seen.stdout
    again = edgetune_command("train", tmp_path / "tiny.yaml", "--out", tmp_path / "run", "--json")
    assert again.exit_code == 2
    assert json.loads(again.stdout)["exit_code"] == 2
