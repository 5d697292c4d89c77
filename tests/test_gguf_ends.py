"""Generation ends where training ended an answer: in the file, by llama.cpp's own word, and in a chat."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.short_vocabulary import WORDS  # noqa: E402
from support.written_gguf import write_llama  # noqa: E402
from transformers import GenerationConfig  # noqa: E402

from edgetune.errors import ModelError, VerificationFailed  # noqa: E402
from edgetune.gguf import write  # noqa: E402
from edgetune.gguf.llama_vocabulary import open_vocabulary  # noqa: E402
from edgetune.gguf.verification.verify import verify_file  # noqa: E402
from edgetune.gguf.vocabularies.ends import with_ends  # noqa: E402
from edgetune.gguf.vocabularies.proof import write_vocabulary_only  # noqa: E402
from edgetune.gguf.vocabulary import build_vocabulary  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.ends import answer_end, recorded_ends  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.models.load import open_tokenizer  # noqa: E402
from edgetune.models.locate import ModelFiles, locate_model  # noqa: E402
from edgetune.runtime.sampling import GREEDY  # noqa: E402
from edgetune.runtime.session import Session  # noqa: E402
from edgetune.weights.merge import merge  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

END_OF_TEXT, START, IM_END, END, OTHER = 0, 1, 2, 7, 8
"""Special tokens of SmolLM2. llama.cpp knows <|endoftext|> and <|im_end|> as ends by their text, and not the others."""

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}%s\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def variant(
    base: Path,
    folder: Path,
    *,
    after: str = "",
    eos: str | None = "<|endoftext|>",
    recorded: int | list[int] | None = None,
) -> Path:
    """`base` with another template (`after` is what follows an answer), EOS, and generation_config.json."""
    shutil.copytree(base, folder)
    file = folder / "tokenizer_config.json"
    settings = {**json.loads(file.read_text()), "eos_token": eos}
    file.write_text(json.dumps({key: value for key, value in settings.items() if key != "chat_template"}))
    (folder / "chat_template.jinja").write_text(TURNS.replace("%s", after))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": recorded}))
    return folder


def text_of(folder: Path, token: int) -> str:
    return open_tokenizer(locate_model(str(folder))).backend.id_to_token(token)


def says(file: Path) -> dict[str, int | None]:
    return {role: GgufFile(file).metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")}


def ends(file: Path) -> set[int]:
    """The tokens at which llama.cpp stops."""
    with open_vocabulary(file) as vocabulary:
        return {token for token in range(WORDS) if vocabulary.stops_at(token)}


def written(folder: Path, file: Path) -> Path:
    """A file of the folder's vocabulary alone, its ends as an export writes them."""
    tokenizer = open_tokenizer(locate_model(str(folder)))
    vocabulary = build_vocabulary(tokenizer, WORDS, where=str(folder))
    write_vocabulary_only(with_ends(vocabulary, tokenizer, recorded_ends(locate_model(str(folder)))), file)
    return file


def test_a_turn_that_ends_in_a_special_token_of_its_own_ends_generation(tiny_llama: Path, tmp_path: Path) -> None:
    mark = text_of(tiny_llama, END)
    folder = variant(tiny_llama, tmp_path / "model", after=mark, recorded=[END_OF_TEXT, END])
    export(resolve_source(str(folder)), tmp_path / "model.gguf", preset="f32")
    assert says(tmp_path / "model.gguf") == {"eos": END_OF_TEXT, "eot": END, "eom": None}
    assert {END_OF_TEXT, END} <= ends(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("after", "recorded", "expected"),
    [
        (None, [END_OF_TEXT, END], {"eos": 0, "eot": END, "eom": None}),
        (None, [END_OF_TEXT, END, OTHER], {"eos": 0, "eot": END, "eom": OTHER}),
        (None, END, {"eos": 0, "eot": END, "eom": None}),
        (END, [OTHER, END_OF_TEXT], {"eos": 0, "eot": END, "eom": OTHER}),
        (END, None, {"eos": 0, "eot": END, "eom": None}),
        (IM_END, [END_OF_TEXT, IM_END], {"eos": 0, "eot": IM_END, "eom": None}),
        (END_OF_TEXT, [END_OF_TEXT, IM_END], {"eos": 0, "eot": None, "eom": None}),
        (END_OF_TEXT, [-1, WORDS + 5, True, "x"], {"eos": 0, "eot": None, "eom": None}),
    ],
)
def test_what_the_model_stops_at_is_what_llama_cpp_stops_at(
    after: int | None, recorded: int | list[int] | None, expected: dict, tiny_llama: Path, tmp_path: Path
) -> None:
    mark = text_of(tiny_llama, IM_END if after is None else after)
    folder = variant(tiny_llama, tmp_path / "model", after=mark, recorded=recorded)
    file = written(folder, tmp_path / "vocabulary.gguf")
    if after is None:  # the template's own takes the place, and the others follow
        expected = {"eos": 0, "eot": IM_END, "eom": expected["eot"]}
    assert says(file) == expected
    listed = [recorded] if isinstance(recorded, int) else recorded or []
    wanted = {token for token in listed if type(token) is int and 0 <= token < WORDS}
    assert wanted - ends(file) == ({OTHER} if after is None and OTHER in wanted else set())


def test_more_ends_than_a_file_has_place_for_are_named(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = variant(
        tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END), recorded=[END_OF_TEXT, OTHER, OTHER + 1]
    )
    file = written(folder, tmp_path / "vocabulary.gguf")
    assert says(file) == {"eos": END_OF_TEXT, "eot": END, "eom": OTHER}
    said = capsys.readouterr().err
    assert repr(text_of(tiny_llama, OTHER + 1)) in said
    assert "does not stop there" in " ".join(said.split())


def test_an_end_that_only_the_next_turn_shows_is_an_end(tiny_llama: Path, tmp_path: Path) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after="", recorded=END_OF_TEXT)
    assert says(written(folder, tmp_path / "vocabulary.gguf"))["eot"] == START


def test_a_tokenizer_without_eos_takes_its_end_from_the_template_and_never_an_ordinary_token(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END), eos=None)
    file = written(folder, tmp_path / "vocabulary.gguf")
    assert says(file)["eos"] == END
    assert 11 not in ends(file)


def test_no_end_at_all_is_refused_with_a_way_out(tiny_llama: Path, tmp_path: Path) -> None:
    folder = variant(tiny_llama, tmp_path / "model", eos=None)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"no token ends a text.*eos_token.*tokenizer_config\.json"):
        written(folder, tmp_path / "vocabulary.gguf")


def test_the_ends_of_a_gguf_base_stay(tiny_llama: Path, tmp_path: Path) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END), recorded=[OTHER])
    export(resolve_source(str(folder)), tmp_path / "first.gguf", preset="f32")
    assert recorded_ends(ModelFiles("x", tmp_path, gguf=tmp_path / "first.gguf")) == (END_OF_TEXT, END, OTHER)
    export(resolve_source(str(tmp_path / "first.gguf")), tmp_path / "again.gguf", preset="f32")
    assert says(tmp_path / "again.gguf") == {"eos": END_OF_TEXT, "eot": END, "eom": OTHER}


def test_a_generation_configuration_that_is_no_json_is_named_and_passed_over(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END))
    (folder / "generation_config.json").write_text("{")
    assert recorded_ends(locate_model(str(folder))) == ()
    assert "generation_config.json is not readable JSON" in " ".join(capsys.readouterr().err.split())


def test_a_file_that_would_write_on_is_not_kept(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END))
    monkeypatch.setattr(write, "with_ends", lambda vocabulary, *_: vocabulary)
    with pytest.raises(VerificationFailed, match=r"does not stop at the token 7.*not kept.*end answers"):
        export(resolve_source(str(folder)), tmp_path / "model.gguf", preset="f32")
    assert not (tmp_path / "model.gguf").exists()


def test_verify_finds_a_file_of_another_tool_that_would_write_on(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END))
    file = silent(folder, tmp_path)
    with pytest.raises(VerificationFailed, match=r"does not stop at the token 7.*export it again"):
        verify_file(file, open_tokenizer(locate_model(str(folder))))
    capsys.readouterr()
    verify_file(file)
    assert "does not stop at the token 7" in " ".join(capsys.readouterr().err.split())


def silent(folder: Path, tmp_path: Path) -> Path:
    """The folder's model as a tool writes it that knows of one EOS only."""
    tokenizer = open_tokenizer(locate_model(str(folder)))
    vocabulary = build_vocabulary(tokenizer, WORDS, where=str(folder))
    write_vocabulary_only(vocabulary, tmp_path / "vocabulary.gguf")
    return write_llama(folder, tmp_path / "vocabulary.gguf", tmp_path / "silent.gguf")


def say_always(folder: Path, token: int) -> None:
    """Change the folder's weights so that the model writes this token, whatever it reads."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_(1.0)
    weights["model.embed_tokens.weight"].fill_(1.0)
    head = torch.zeros_like(weights["model.embed_tokens.weight"])
    head[token] = 1.0
    save_file({**weights, "lm_head.weight": head}, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


@pytest.mark.parametrize("maker", ["edgetune", "another tool"])
def test_a_chat_stops_where_the_template_ends_an_answer(maker: str, tiny_llama: Path, tmp_path: Path) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END), recorded=END_OF_TEXT)
    say_always(folder, END)
    if maker == "edgetune":
        file = tmp_path / "model.gguf"
        export(resolve_source(str(folder)), file, preset="f32")
    else:
        file = silent(folder, tmp_path)
        assert END not in ends(file)
    with Session.open(file, context_tokens=128, threads=1) as session:
        written = session.generate(session.vocabulary.tokenize("Hello"), sampling=GREEDY, max_tokens=5)
        assert list(written) == []
        assert written.stats.finish_reason == "stop"
        assert written.stats.generated_tokens == 0


def test_a_merged_model_stops_in_transformers_where_its_template_ends_an_answer(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = variant(tiny_llama, tmp_path / "model", after=text_of(tiny_llama, END), recorded=END_OF_TEXT)
    merge(resolve_source(str(folder)), tmp_path / "merged")
    assert GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id == [END_OF_TEXT, END]
    merge(resolve_source(str(tmp_path / "merged")), tmp_path / "again")
    assert GenerationConfig.from_pretrained(tmp_path / "again").eos_token_id == [END_OF_TEXT, END]


def test_a_template_that_ends_no_answer_is_told(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = open_tokenizer(locate_model(str(tiny_llama)))
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer = replace(tokenizer, chat_template=plain)
    vocabulary = build_vocabulary(tokenizer, WORDS, where="x")
    with_ends(vocabulary, tokenizer, ())
    assert "no token after an answer" in " ".join(capsys.readouterr().err.split())
    found = answer_end(tokenizer)
    assert found is not None
    assert found.token is None
