"""`edgetune verify` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from support.written_gguf import write_bert, write_llama  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


@pytest.fixture(scope="module")
def file(tiny_llama: Path, smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny_llama as an F16 GGUF."""
    return write_llama(tiny_llama, smollm2_gguf, tmp_path_factory.mktemp("verify") / "model.gguf")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("text") / "text.txt"
    written.write_text("It was the best of times, it was the worst of times. " * 4)
    return written


def test_a_file_alone_is_opened_and_computed(file: Path, edgetune_command) -> None:
    done = edgetune_command("verify", file)
    assert done.exit_code == 0
    assert "20 tensors" in done.stdout
    assert "all blocks, finite" in done.stdout
    assert "20 conversations rendered\n" in "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"


def test_a_file_is_compared_with_its_model(file: Path, tiny_llama: Path, text: Path, edgetune_command) -> None:
    done = edgetune_command("verify", file, "--against", tiny_llama, "--text", text, "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 0
    assert said["passed"]
    assert said["exceeded"] == []
    assert said["checks"]["conversations"] == 20
    assert said["divergence"]["kl_mean"] < 1e-5
    assert said["divergence"]["perplexity_ratio"] == pytest.approx(1.0, abs=1e-3)
    assert said["limits"]["max_kl_mean"] == 0.01


def test_a_file_without_the_adapter_exceeds_its_limits(
    file: Path, tiny_llama: Path, text: Path, tmp_path: Path, edgetune_command
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1.0)
    adapted.save_pretrained(tmp_path / "adapter")
    arguments = ["verify", file, "--against", tmp_path / "adapter", "--base", tiny_llama, "--text", text]
    done = edgetune_command(*arguments)
    assert done.exit_code == 1
    assert "exceeded" in done.stdout
    assert "exceeds its limits: mean KL divergence" in done.stderr
    machine = edgetune_command(*arguments, "--json")
    assert machine.exit_code == 1
    assert "mean KL divergence" in json.loads(machine.stdout)["exceeded"]


def test_a_limit_of_ones_own_is_kept_or_exceeded(file: Path, tiny_llama: Path, text: Path, edgetune_command) -> None:
    done = edgetune_command("verify", file, "--against", tiny_llama, "--text", text, "--min-top1", "1.1", "--json")
    said = json.loads(done.stdout)
    assert (done.exit_code, said["exceeded"]) == (1, ["top-1 agreement"])
    assert said["limits"]["min_top1"] == 1.1


def test_a_model_with_other_tokens_is_refused(
    smollm2_gguf: Path, tiny_llama: Path, tmp_path: Path, edgetune_command
) -> None:
    says = {"tokenizer.ggml.pre": "llama-bpe"}
    other = write_llama(tiny_llama, smollm2_gguf, tmp_path / "other.gguf", says=says)
    done = edgetune_command("verify", other, "--against", tiny_llama)
    assert done.exit_code == 1
    assert "different ids" in done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["FILE", "--text", "TEXT"], "--against"),
        (["FILE", "--max-kl-mean", "0.1"], "--against"),
        (["FILE", "--against", "MODEL", "--text", "nowhere.txt"], "no such data file"),
        (["FILE", "--against", "MODEL", "--text", "ONE"], "fewer than two tokens"),
        (["FILE", "--against", "no/such/model/anywhere"], "no such model folder"),
        (["TEXT"], "is not a GGUF file"),
        (["nowhere.gguf"], "no such file"),
    ],
)
def test_bad_input_ends_with_one_line_and_exit_code_2(
    arguments: list[str], says: str, file: Path, tiny_llama: Path, text: Path, tmp_path: Path, edgetune_command
) -> None:
    (tmp_path / "one.txt").write_text("a")
    known = {"FILE": file, "MODEL": tiny_llama, "TEXT": text, "ONE": tmp_path / "one.txt"}
    done = edgetune_command("verify", *[known.get(word, word) for word in arguments])
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


def test_an_encoder_without_a_vocabulary_fails(tmp_path: Path, edgetune_command) -> None:
    done = edgetune_command("verify", write_bert(tmp_path / "bert.gguf"))
    assert done.exit_code == 1
    assert "no vocabulary" in done.stderr


def test_a_file_is_checked_without_torch(file: Path, run_python) -> None:
    seen = run_python(
        "import sys; from pathlib import Path\n"
        "from edgetune.cli.verify import verify\n"
        "print([name for name in ('torch', 'transformers', 'llama_cpp', 'numpy') if name in sys.modules])\n"
        f"verify(Path({str(file)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    assert seen.splitlines()[0] == seen.splitlines()[-1] == "[]"
