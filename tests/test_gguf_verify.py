"""A written file is opened, tokenizes and computes as its model does, or the check says what is wrong with it."""

from __future__ import annotations

import os
import signal
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from scipy.special import rel_entr  # noqa: E402
from support.written_gguf import write_bert, write_llama, write_t5  # noqa: E402

from edgetune.errors import ModelError, VerificationFailed  # noqa: E402
from edgetune.gguf.verification import trial_process, verify  # noqa: E402
from edgetune.gguf.verification.divergence import cut_windows, kl_divergence, measure_divergence  # noqa: E402
from edgetune.gguf.verification.excerpt import open_excerpt, plan_excerpt  # noqa: E402
from edgetune.gguf.verification.reference import open_reference  # noqa: E402
from edgetune.gguf.verification.thresholds import DEFAULTS, default_thresholds  # noqa: E402
from edgetune.gguf.verification.trial import Trial, begin_trial  # noqa: E402
from edgetune.gguf.verification.verify import verify_export, verify_file  # noqa: E402
from edgetune.gguf.vocabulary import parity_texts  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.models.load import open_tokenizer  # noqa: E402
from edgetune.models.locate import locate_model  # noqa: E402
from edgetune.models.tokenizer import ModelTokenizer  # noqa: E402
from edgetune.runtime.session import Session  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DENSE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> ModelTokenizer:
    return open_tokenizer(locate_model(str(tiny_llama)))


@pytest.fixture(scope="module")
def good(tiny_llama: Path, smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tiny_llama, smollm2_gguf, tmp_path_factory.mktemp("good") / "model.gguf")


def check(file: Path, tokenizer: ModelTokenizer) -> verify.Verification:
    return verify_export(file, tokenizer, parity_texts(tokenizer), name=Path("out.gguf"))


def run_trial(file: Path, bound_bytes: int | None = None) -> Trial:
    with begin_trial(GgufFile(file), bound_bytes=bound_bytes) as finish:
        return finish()


def test_a_file_that_is_as_it_should_be_passes_every_check(
    good: Path, tokenizer: ModelTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = check(good, tokenizer)
    assert (passed.tensors, passed.kind, passed.computed_blocks) == (20, "decoder", None)
    assert (passed.conversations, passed.refused_conversations) == (20, 0)
    assert passed.texts == len(parity_texts(tokenizer))
    assert verify_file(good, tokenizer) == passed
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({"tokenizer.ggml.pre": "llama-bpe"}, "different ids for"),
        ({"tokenizer.ggml.add_bos_token": True}, "different ids for"),
        ({"tokenizer.ggml.add_eos_token": True}, "different ids for"),
        ({"tokenizer.ggml.eos_token_id": 0}, "EOS is the token 0, but the tokenizer's is 2"),
        ({"tokenizer.ggml.bos_token_id": None}, "BOS is the token None, but the tokenizer's is 1"),
        ({"tokenizer.chat_template": "{{ messages }}"}, "chat template in the file is not the tokenizer's"),
        ({"tokenizer.chat_template": None}, "chat template in the file is not the tokenizer's"),
        ({"tokenizer.ggml.model": "no_vocab"}, "no vocabulary"),
    ],
    ids=lambda value: (
        ", ".join(f"{key.split('.')[-1]}={item!r:.12}" for key, item in value.items())
        if isinstance(value, dict)
        else ""
    ),
)
def test_a_file_that_reads_text_differently_is_refused(
    says: dict[str, Any], reason: str, tiny_llama: Path, smollm2_gguf: Path, tokenizer: ModelTokenizer, tmp_path: Path
) -> None:
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", says=says)
    with pytest.raises(VerificationFailed, match=reason) as caught:
        check(file, tokenizer)
    assert caught.value.where == "out.gguf"
    assert "was not kept" in str(caught.value)


def test_a_conversation_with_other_ids_is_refused_although_the_texts_agree(good: Path, tiny_llama: Path) -> None:
    other = open_tokenizer(locate_model(str(tiny_llama)))
    other.backend.add_special_tokens(["helpful AI assistant"])  # part of the template's own system message
    with pytest.raises(VerificationFailed, match="has other ids in llama"):
        verify_export(good, other, ["Hello, world!"], name=Path("out.gguf"))


def test_white_space_that_only_the_tokenizer_drops_beside_a_message_is_told(
    tiny_llama: Path, smollm2_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import AddedToken

    dropping = replace(open_tokenizer(locate_model(str(tiny_llama))), chat_template=DENSE)
    dropping.backend.add_special_tokens([AddedToken("<|im_start|>", rstrip=True, normalized=False)])
    says = {"tokenizer.chat_template": DENSE}
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", says=says)
    assert verify_file(file, dropping).conversations == 20
    warnings = capsys.readouterr().err
    why = "'<|im_start|>': the tokenizer removes the white space after it"
    assert (
        f"messages that begin or end with white space have other ids in llama.cpp than in training ({why})" in warnings
    )
    assert f"text with these tokens has other ids in llama.cpp than in training ({why})" in warnings


def test_line_breaks_of_the_template_that_only_the_tokenizer_drops_are_refused(
    tiny_llama: Path, smollm2_gguf: Path, tmp_path: Path
) -> None:
    from tokenizers import AddedToken

    template = DENSE.replace("<|im_start|>", "<|im_start|>\n")
    dropping = replace(open_tokenizer(locate_model(str(tiny_llama))), chat_template=template)
    dropping.backend.add_special_tokens([AddedToken("<|im_start|>", rstrip=True, normalized=False)])
    says = {"tokenizer.chat_template": template}
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", says=says)
    with pytest.raises(VerificationFailed, match="has other ids in llama"):
        verify_file(file, dropping)


def test_what_a_normalizer_changes_is_told_and_conversations_are_compared_as_the_runtime_reads_them(
    good: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers.normalizers import NFC

    normalizing = open_tokenizer(locate_model(str(tiny_llama)))
    normalizing.backend.normalizer = NFC()
    assert verify_file(good, normalizing).conversations == 20
    warnings = capsys.readouterr().err
    assert "normalizes text (NFC)" in warnings
    assert "edgetune normalizes" not in warnings  # this file does not say that it should
    assert "answers in a conversation" not in warnings


def test_a_template_may_refuse_conversations_on_both_sides(
    tiny_llama: Path, smollm2_gguf: Path, tokenizer: ModelTokenizer, tmp_path: Path
) -> None:
    says = {"tokenizer.chat_template": STRICT}
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", says=says)
    passed = check(file, replace(tokenizer, chat_template=STRICT))
    assert passed.refused_conversations == 8
    assert passed.conversations == 12


@pytest.mark.parametrize(("template", "warned"), [(STRICT, False), (PLAIN, True)])
def test_a_bos_that_only_other_programs_would_add_to_a_chat_is_told(
    template: str,
    warned: bool,
    tiny_llama: Path,
    smollm2_gguf: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tokenizers.processors import TemplateProcessing

    adding = replace(open_tokenizer(locate_model(str(tiny_llama))), chat_template=template)
    adding.backend.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    says = {"tokenizer.chat_template": template, "tokenizer.ggml.add_bos_token": True}
    check(write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", says=says), adding)
    assert ("token to chats" in capsys.readouterr().err) is warned


def test_a_truncated_file_is_refused(good: Path, tokenizer: ModelTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(VerificationFailed, match="truncated"):
        check(file, tokenizer)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"blk.1.ffn_up.weight": np.full((512, 256), np.nan, np.float16)}, "not finite"),
        ({"blk.1.ffn_up.weight": np.zeros((256, 512), np.float16)}, "wrong shape"),
        ({"blk.1.ffn_up.weight": None}, "blk.1.ffn_up.weight"),
    ],
)
def test_weights_that_cannot_be_computed_with_are_refused(
    tensors: dict[str, Any],
    reason: str,
    tiny_llama: Path,
    smollm2_gguf: Path,
    tokenizer: ModelTokenizer,
    tmp_path: Path,
) -> None:
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", tensors=tensors)
    with pytest.raises(VerificationFailed, match=reason):
        check(file, tokenizer)


def test_an_excerpt_is_the_leading_blocks_as_they_are(good: Path) -> None:
    file = GgufFile(good)
    excerpt = plan_excerpt(file, file.expected_bytes - 1)
    assert excerpt is not None
    with open_excerpt(file, excerpt) as (path, _):
        part = GgufFile(Path(path))
        assert part.metadata == {**file.metadata, "llama.block_count": 1}
        assert file.array("llama.attention.head_count_kv") == [2, 2]
        assert part.array("llama.attention.head_count_kv") == [2]
        assert part.array("tokenizer.ggml.merges") == file.array("tokenizer.ggml.merges")
        assert set(part.tensors) == {name for name in file.tensors if "blk.1." not in name}
        for name in part.tensors:
            assert np.array_equal(part.data(name), file.data(name))


def test_what_fits_is_computed_whole(good: Path) -> None:
    assert plan_excerpt(GgufFile(good), good.stat().st_size) is None


@pytest.mark.parametrize(("write", "kind"), [(write_bert, "encoder"), (write_t5, "encoder-decoder")])
def test_encoders_are_computed_whole_and_in_part(write: Any, kind: str, tmp_path: Path) -> None:
    file = write(tmp_path / "model.gguf")
    assert run_trial(file) == Trial(kind, None)
    assert run_trial(file, bound_bytes=1) == Trial(kind, 1)


def test_a_tensor_that_lacks_behind_the_excerpt_is_found(tiny_llama: Path, smollm2_gguf: Path, tmp_path: Path) -> None:
    lacking = {"blk.1.ffn_up.weight": None}
    file = write_llama(tiny_llama, smollm2_gguf, tmp_path / "model.gguf", tensors=lacking)
    with pytest.raises(VerificationFailed, match=r"blk\.1\.ffn_up\.weight"):
        run_trial(file, bound_bytes=1)


def test_where_an_excerpt_is_not_taken_the_whole_file_decides(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.gguf.verification import excerpt

    monkeypatch.setattr(excerpt, "_shorten", lambda key, file, _: file.entry_bytes(key))
    assert run_trial(good, bound_bytes=1) == Trial("decoder", None)


def test_native_code_that_dies_is_a_failed_check(
    good: Path, tokenizer: ModelTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dies.py"
    program.write_text(f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    monkeypatch.setattr(trial_process, "__file__", str(program))
    with pytest.raises(VerificationFailed, match=r"crashed while loading or running this file.*SIGSEGV"):
        check(good, tokenizer)


def test_a_check_that_fails_early_leaves_no_child_behind(good: Path, tmp_path: Path, monkeypatch) -> None:
    program, pid = tmp_path / "waits.py", tmp_path / "pid"
    program.write_text(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    monkeypatch.setattr(trial_process, "__file__", str(program))

    def fail_when_it_runs() -> None:
        with begin_trial(GgufFile(good)):
            while not (pid.exists() and pid.read_text()):
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_when_it_runs()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_file_that_is_no_model_is_named_by_what_it_is(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "lora.gguf", "llama")
    writer.add_type("adapter")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="is an adapter, not a model"):
        verify_file(tmp_path / "lora.gguf")


def test_header_entries_joined_are_the_header(good: Path) -> None:
    file = GgufFile(good)
    content = good.read_bytes()
    joined = b"".join(file.entry_bytes(key) for key in file.entries)
    assert struct.unpack_from("<Q", content, 16) == (len(file.entries),)
    assert content[24 : 24 + len(joined)] == joined
    assert file.array("tokenizer.ggml.tokens", 3) == file.array("tokenizer.ggml.tokens")[:3]


def log_softmax(rows: np.ndarray) -> np.ndarray:
    return torch.tensor(rows).log_softmax(-1).numpy()


def test_the_divergence_is_scipys() -> None:
    generator = np.random.default_rng(0)
    expected, found = (log_softmax(generator.standard_normal((50, 100)) * 3) for _ in range(2))
    expected[0, 0], found[0, 1] = -np.inf, found[0, 1]
    reference = rel_entr(np.exp(expected), np.exp(found)).sum(-1)
    assert np.allclose(kl_divergence(expected, found), reference, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 30))
def test_a_divergence_is_zero_only_of_equals(seed: int, rows: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = (log_softmax(generator.standard_normal((rows, size)).astype(np.float32)) for _ in range(2))
    assert kl_divergence(one, one).max() == 0
    assert kl_divergence(one, other).min() > 0


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(2, 9), st.integers(0, 1))
def test_windows_joined_are_the_text(ids: list[int], size: int, prefixed: int) -> None:
    windows = list(cut_windows(ids, size, prefix=[99] * prefixed))
    assert [token for window in windows for token in window[prefixed:]] == ids
    assert all(len(window) <= size and window[:prefixed] == [99] * prefixed for window in windows)


def test_figures_over_windows_are_those_over_all_positions() -> None:
    """In chunks and windows, or at once with torch and numpy: the same."""
    generator = np.random.default_rng(1)
    windows = [[3, 1, 4, 1, 5] * 20, [9, 2, 6]]
    sides = [{len(w): log_softmax(generator.standard_normal((len(w), 10))) for w in windows} for _ in range(2)]
    counted: list[int] = []
    measured = measure_divergence(
        windows, lambda ids: sides[0][len(ids)], lambda ids: sides[1][len(ids)], advance=counted.append
    )
    model, file = (np.concatenate([side[len(w)] for w in windows]) for side in sides)
    divergences = torch.nn.functional.kl_div(
        torch.tensor(file), torch.tensor(model), log_target=True, reduction="none"
    ).sum(-1)
    assert measured.tokens == sum(counted) == 103
    assert measured.kl_mean == pytest.approx(float(divergences.mean()))
    assert measured.kl_p99 == pytest.approx(np.percentile(divergences.numpy(), 99))
    assert measured.top1_agreement == (model.argmax(-1) == file.argmax(-1)).mean()
    losses = [
        torch.nn.functional.nll_loss(
            torch.cat([torch.tensor(side[len(w)])[:-1] for w in windows]),
            torch.tensor([t for w in windows for t in w[1:]]),
        )
        for side in sides
    ]
    assert measured.model_perplexity == pytest.approx(float(losses[0].exp()))
    assert measured.file_perplexity == pytest.approx(float(losses[1].exp()))
    assert measured.perplexity_ratio == pytest.approx(float((losses[1] - losses[0]).exp()))


def test_vocabularies_of_other_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match="predicts 11 tokens, the model 10"):
        measure_divergence([[1, 2]], lambda _: np.zeros((2, 10)), lambda _: np.zeros((2, 11)))


def test_predictions_that_are_not_finite_are_a_failed_check() -> None:
    with pytest.raises(VerificationFailed, match="not finite"):
        measure_divergence([[1, 2]], lambda _: np.zeros((2, 10)), lambda _: np.full((2, 10), np.nan))


def test_an_f16_file_is_as_close_to_transformers_as_its_limits_ask(good: Path, tiny_llama: Path) -> None:
    reference = open_reference(resolve_source(str(tiny_llama)))
    windows = list(cut_windows(list(range(100, 260)), 100))
    with Session.open(good, context_tokens=100) as session:
        measured = measure_divergence(windows, reference, session.context.log_probabilities)
    assert all(finding.kept for finding in default_thresholds(16.0).judge(measured))
    assert measured.kl_mean < 1e-5


def test_limits_are_stricter_the_more_bits_a_weight_has() -> None:
    assert [default_thresholds(bits) for bits in (32.0, 16.0, 8.5, 4.9, 1.0)] == [
        *(DEFAULTS[16], DEFAULTS[16], DEFAULTS[8], DEFAULTS[0], DEFAULTS[0])
    ]
    nan = float("nan")
    assert not any(
        finding.kept
        for finding in DEFAULTS[0].judge(
            measure_divergence_of(kl_mean=nan, kl_p99=nan, top1_agreement=nan, perplexity_ratio=nan)
        )
    )


def measure_divergence_of(**figures: float) -> Any:
    from edgetune.gguf.verification.divergence import Divergence

    return Divergence(tokens=1, model_perplexity=1.0, file_perplexity=1.0, **figures)
