"""Addresses of endpoints: one spelling of a URL, the address of its completions, and the header with the key.

Azure OpenAI differs from all others in the last two. It needs an `api-version` in the query of
.../openai/deployments/DEPLOYMENT, and keys in the header `api-key`; a token of Microsoft Entra ID goes into the header
that others use for keys. The openai package's AzureOpenAI does the same.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

COMPLETIONS = "/chat/completions"

_AZURE_HOSTS = (
    *(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
    *(".openai.azure.us", ".cognitiveservices.azure.us", ".openai.azure.cn", ".cognitiveservices.azure.cn"),
)
_SECRETS = (
    *("key", "api-key", "api_key", "apikey", "x-api-key", "subscription-key", "ocp-apim-subscription-key", "code"),
    *("token", "access_token", "access-token", "auth", "authorization", "secret", "password", "sig", "signature"),
)
"""Names of query parameters that hold a key at some service."""


def spell_url(url: str) -> str:
    """The base URL in one spelling: no slash at its end, no /chat/completions, its query kept as it is.

    Raises ValueError for what is no address of an endpoint, and for one that holds a password or a key; its text shows
    neither.
    """
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("it is no URL: its host or its port cannot be read") from None
    if parts.username or parts.password:
        raise ValueError("it must hold no user or password; a key comes from the environment or .env")
    secret = next((name for name, _ in parse_qsl(parts.query, True) if name.casefold() in _SECRETS), None)
    if secret is not None:
        raise ValueError(f"its query must hold no key, and {secret} is one; a key comes from the environment or .env")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one:
        raise ValueError(f"{url!r} must begin with http:// or https:// and name a host")
    if parts.fragment:
        raise ValueError(f"{url!r} has a #; the model's name has a key of its own, model")
    path = parts.path.rstrip("/").removesuffix(COMPLETIONS).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def hide_secrets(reference: str) -> str:
    """A URL for a message: without user, password and query, each of which may hold a key."""
    head, mark, rest = reference.partition("://")
    host, slash, path = rest.partition("/")
    host, path = host.rpartition("@")[2], path.partition("#")[0]
    query = "?..." if "?" in host or "?" in path else ""
    return f"{head}{mark}{host.partition('?')[0]}{slash}{path.partition('?')[0]}{query}"


def completions_url(url: str) -> str:
    """The address of chat completions below a base URL: its path is extended, and its query stays at the end."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + COMPLETIONS))


def base_of(url: str) -> str:
    """The base URL without its query."""
    return urlunsplit(urlsplit(url)._replace(query=""))


def is_azure(url: str) -> bool:
    """Whether an endpoint takes its key as Azure does, by its host, its path, or an `api-version` in its query."""
    parts = urlsplit(url)
    host = (parts.hostname or "").casefold()
    versioned = any(name.casefold() == "api-version" for name, _ in parse_qsl(parts.query, True))
    return versioned or host.endswith(_AZURE_HOSTS) or "/openai/deployments/" in f"{parts.path}/"


def lacks_api_version(url: str) -> bool:
    """Whether this is one of Azure's addresses that only work with an `api-version` in their query."""
    parts = urlsplit(url)
    return is_azure(url) and "api-version" not in parts.query.casefold() and not parts.path.endswith("/v1")


def key_headers(url: str, key: str | None) -> dict[str, str]:
    """The header with the key; empty without a key."""
    if key is None:
        return {}
    if is_azure(url) and not _is_token(key):
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


def _is_token(key: str) -> bool:
    """A token of an identity service (a JSON web token): three parts, the first of which begins with `{"` in base64."""
    return key.startswith("eyJ") and key.count(".") == 2
