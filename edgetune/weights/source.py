"""Resolves the SOURCE of `merge` and `export`: base, adapter, tokenizer and recipe."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import AdapterError, ModelError
from edgetune.models.locate import PACKAGE_PREFIX, ModelFiles, download, locate_model
from edgetune.recipe.yaml_input import read_mapping

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.models.tokenizer import ModelTokenizer

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MLX_WEIGHTS = "adapters.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_HUB_ADAPTER_PATTERNS = [
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "*token*.json",
    "*.jinja",
    "*.model",
    "vocab.json",
    "merges.txt",
]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder in PEFT's format. `settings` is its adapter_config.json."""

    folder: Path
    settings: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The safetensors file with the adapter's tensors."""
        return self.folder / ADAPTER_WEIGHTS

    @property
    def recorded_base(self) -> str | None:
        """The base model that the training tool recorded, if any."""
        return self.settings.get("base_model_name_or_path") or None

    def sha256(self) -> str:
        """The hash of the adapter's tensors, in hexadecimal; it identifies the training of a merged model."""
        with self.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ModelSource:
    """A model to write: a base, and an adapter to fold into it.

    `tokenizer_folder` is None when the base's tokenizer is used. `recipe` is the run directory's recipe.yaml.
    """

    name: str
    base: ModelFiles
    adapter: Adapter | None = None
    recipe: Path | None = None
    tokenizer_folder: Path | None = None

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the adapter was trained with, with its chat template. Raises ModelError."""
        from edgetune.models.load import load_tokenizer

        return load_tokenizer(self._tokenizer_files)

    def open_tokenizer(self) -> ModelTokenizer:
        """The same without Transformers, where that is possible. Raises ModelError."""
        from edgetune.models.load import open_tokenizer

        return open_tokenizer(self._tokenizer_files)

    @property
    def _tokenizer_files(self) -> ModelFiles:
        folder = self.tokenizer_folder
        return self.base if folder is None else ModelFiles(str(folder), folder)


def resolve_source(source: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> ModelSource:
    """Resolve a run directory, an adapter (folder, hub id), or a model reference that `locate_model` accepts.

    `base` overrides the base model that a run or an adapter records. Raises AdapterError, ModelError, and
    MissingComponent for a package that is not installed.
    """
    argument, base = os.fspath(source), None if base is None else os.fspath(base)
    path = Path(argument).expanduser()
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return _run_directory(path, base)
    if path.is_dir() and (path / ADAPTER_CONFIG).is_file():
        return _adapter_folder(path, base)
    if path.is_dir():
        _refuse_folder_of_adapters(path)
    if not path.exists() and _looks_like_hub_id(argument):
        folder = _hub_adapter(argument)
        if folder is not None:
            return _adapter_folder(folder, base, name=argument.split("/")[1])
    if base is not None:
        raise AdapterError(
            "is a whole model, so there is no adapter for another base",
            where=argument,
            remedy="leave --base out, or give an adapter folder",
        )
    return ModelSource(name=_model_name(argument, path), base=locate_model(argument))


def _run_directory(run: Path, base: str | None) -> ModelSource:
    recipe_file = run / "recipe.yaml"
    if (run / "model" / "config.json").is_file():
        return _whole_model_of(run, base)
    if not (run / "adapter" / ADAPTER_CONFIG).is_file():
        raise AdapterError(
            "this run has no finished adapter/", where=run, remedy="finish it with `edgetune train RECIPE --resume`"
        )
    adapter = _open_adapter(run / "adapter")
    recipe = read_mapping(recipe_file)
    trained_on = recipe.get("base")
    settings = trained_on if isinstance(trained_on, dict) else {"model": trained_on}
    model = settings.get("model")
    if not isinstance(model, str):
        raise ModelError("base.model is missing", where=recipe_file, remedy="name the base with --base MODEL")
    files = locate_model(base) if base else locate_model(model, revision=settings.get("revision"))
    if base is None and adapter.recorded_base and not _same_model(adapter.recorded_base, files):
        raise AdapterError(
            f"was trained on {adapter.recorded_base}, but the run's recipe names {files.reference}",
            where=adapter.folder,
            remedy="name the right one with --base MODEL",
        )
    return ModelSource(
        name=str(recipe.get("name") or run.resolve().name),
        base=files,
        adapter=adapter,
        recipe=recipe_file,
        tokenizer_folder=_own_tokenizer(adapter.folder),
    )


def _whole_model_of(run: Path, base: str | None) -> ModelSource:
    """A run in which every weight was trained."""
    if base is not None:
        raise AdapterError(
            "every weight of its model was trained, so there is no adapter for another base",
            where=run,
            remedy="leave --base out",
        )
    recipe = read_mapping(run / "recipe.yaml")
    name = str(recipe.get("name") or run.resolve().name)
    return ModelSource(name=name, base=locate_model(str(run / "model")), recipe=run / "recipe.yaml")


def _refuse_folder_of_adapters(folder: Path) -> None:
    """Raise AdapterError for a folder that is no model, and has adapters in its subfolders."""
    if (folder / "config.json").is_file() or any(folder.glob("*.gguf")):
        return
    inside = sorted(file.parent.name for file in folder.glob(f"*/{ADAPTER_CONFIG}"))
    if inside:
        raise AdapterError(
            f"is no adapter, and has adapters in {', '.join(inside)}",
            where=folder,
            remedy=f"give one of them, such as {folder / inside[0]}",
        )


def _adapter_folder(folder: Path, base: str | None, name: str | None = None) -> ModelSource:
    adapter = _open_adapter(folder)
    reference = base or adapter.recorded_base
    if reference is None:
        raise AdapterError(
            f"{ADAPTER_CONFIG} does not name the base model of this adapter",
            where=folder,
            remedy="name it with --base MODEL",
        )
    try:
        files = locate_model(reference)
    except ModelError as problem:
        if base is not None:
            raise
        raise ModelError(
            f"the adapter records this base model, which cannot be used: {problem.what}",
            where=reference,
            remedy="name the base with --base MODEL",
        ) from problem
    return ModelSource(
        name=name or folder.resolve().name, base=files, adapter=adapter, tokenizer_folder=_own_tokenizer(folder)
    )


def _open_adapter(folder: Path) -> Adapter:
    config = folder / ADAPTER_CONFIG
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise AdapterError(f"is not readable JSON ({problem})", where=config) from problem
    if isinstance(settings, dict) and "peft_type" not in settings and (folder / _MLX_WEIGHTS).is_file():
        raise AdapterError(
            "is an adapter in MLX's format, which edgetune does not read",
            where=folder,
            remedy="fold it in with MLX (mlx_lm.fuse, with --dequantize for a quantized base) and give the fused model",
        )
    if not isinstance(settings, dict) or "peft_type" not in settings:
        raise AdapterError("is not a PEFT configuration (it has no peft_type)", where=config)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise AdapterError(
                "holds its weights as a pickle (adapter_model.bin), which can run code when it is loaded",
                where=folder,
                remedy="if you trust it, load it with PEFT and save it again: that writes adapter_model.safetensors",
            )
        raise AdapterError(f"has no {ADAPTER_WEIGHTS}", where=folder, remedy="was the training interrupted?")
    return Adapter(folder, settings)


def _own_tokenizer(folder: Path) -> Path | None:
    return folder if any((folder / name).is_file() for name in _TOKENIZER_FILES) else None


def _same_model(recorded: str, files: ModelFiles) -> bool:
    """A record may be the reference as typed, or the path from which Transformers loaded."""
    known = {files.reference, str(files.folder), str(files.folder.resolve())}
    if files.gguf is not None:
        known |= {str(files.gguf), str(files.gguf.resolve())}
    return recorded in known or str(Path(recorded).expanduser().resolve()) in known


def _looks_like_hub_id(argument: str) -> bool:
    return (
        argument.count("/") == 1
        and not argument.startswith((".", "/", "~", PACKAGE_PREFIX))
        and ".gguf" not in argument
    )


def _hub_adapter(hub_id: str) -> Path | None:
    """The downloaded folder of a hub repository with an adapter; None for anything else.

    `locate_model`, which runs next, reports why the hub cannot be reached.
    """
    try:
        if not (download(hub_id, [ADAPTER_CONFIG]) / ADAPTER_CONFIG).is_file():
            return None
    except ModelError:
        return None
    return download(hub_id, _HUB_ADAPTER_PATTERNS)


def _model_name(argument: str, path: Path) -> str:
    if argument.startswith(PACKAGE_PREFIX):
        return argument.removeprefix(PACKAGE_PREFIX)
    if path.suffix == ".gguf":
        return path.stem
    return path.resolve().name if path.exists() else argument.rsplit("/", 1)[-1]
