"""Addresses of endpoints in all spellings, Azure's among them, and where keys go."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asked import KEY, VERDICT, items, judge_at, question, suite
from support.stub_endpoint import StubEndpoint, StubReply, error_reply

from edgetune.errors import EdgetuneError, RecipeError, UsageError
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.subjects.endpoint import open_endpoint
from edgetune.judging.suites.address import completions_url, is_azure, key_headers, spell_url
from edgetune.judging.suites.judge_file import load_judge

pytestmark = pytest.mark.usefixtures("quick_backoff")


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/v1//", "http://h/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        ("http://h/some/prefix/v1/", "http://h/some/prefix/v1/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/?a=1", "http://h/v1/chat/completions?a=1"),
        ("http://h/v1?a=1&b=x%20y&a=2", "http://h/v1/chat/completions?a=1&b=x%20y&a=2"),
        (
            "https://n.openai.azure.com/openai/deployments/d?api-version=2024-06-01",
            "https://n.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01",
        ),
        (
            "https://n.openai.azure.com/openai/v1/?api-version=preview",
            "https://n.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
    ],
)
def test_an_address_is_joined_rightly_however_it_is_written(written: str, asked: str) -> None:
    assert completions_url(spell_url(written)) == asked
    assert spell_url(spell_url(written)) == spell_url(written)


@pytest.mark.parametrize(
    ("url", "azure"),
    [
        ("https://name.openai.azure.com/openai/v1", True),
        ("https://name.openai.azure.com/openai/deployments/d?api-version=2024-06-01", True),
        ("https://name.services.ai.azure.com/models?api-version=2024-05-01-preview", True),
        ("https://gateway.example/openai/deployments/d", True),
        ("https://api.openai.com/v1", False),
        ("https://openai.azure.com.example/v1", False),
    ],
)
def test_azures_keys_go_where_the_openai_package_sends_them(url: str, azure: bool) -> None:
    import openai

    assert is_azure(url) == azure
    sent = key_headers(url, KEY)
    token = key_headers(url, "eyJ0.eyJz.c2ln")
    if azure:
        client = openai.AzureOpenAI(api_key=KEY, base_url=url, api_version="2024-06-01")
        identity = openai.AzureOpenAI(azure_ad_token="eyJ0.eyJz.c2ln", base_url=url, api_version="2024-06-01")
    else:
        client, identity = openai.OpenAI(api_key=KEY, base_url=url), openai.OpenAI(api_key="eyJ0.eyJz.c2ln")
    for one, headers in ((client, sent), (identity, token)):
        built = one._build_request(one._prepare_options(openai._models.FinalRequestOptions(method="post", url="/x")))
        names = ("api-key", "authorization")
        expected = {name: built.headers[name] for name in names if name in built.headers}
        assert {name.lower(): value for name, value in headers.items()} == expected


@pytest.mark.parametrize("role", ["judge", "judge file", "model"])
def test_azures_address_works_for_judges_and_models_and_its_key_shows_nowhere(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    with StubEndpoint(lambda body: VERDICT) as stub:
        url = f"{stub.url.removesuffix('/v1')}/openai/deployments/gpt-4o?api-version=2024-06-01"
        if role == "model":
            (answer,) = open_endpoint(f"{url}#gpt-4o").answers(items(1), suite())
            said = repr(answer) + open_endpoint(f"{url}#gpt-4o").fingerprint
        else:
            reference = f"{url}#gpt-4o"
            if role == "judge file":
                reference = str(tmp_path / "azure.yaml")
                Path(reference).write_text(
                    f"name: azure\nmodel: gpt-4o\nurl: {url}\nkey: AZURE_OPENAI_API_KEY\n", encoding="utf-8"
                )
            judge = load_judge(reference)
            said = repr(judge) + repr(ask_all([question(1)], judge, cache=None))
    (request,) = stub.requests
    assert request.path == "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01"
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    assert KEY not in said


def test_a_missing_deployment_or_version_is_told_in_azures_words() -> None:
    with StubEndpoint(lambda body: error_reply(404, "Resource not found")) as stub:
        url = f"{stub.url.removesuffix('/v1')}/openai/deployments/gpt-4o"
        with pytest.raises(EdgetuneError, match=r"Resource not found.*\?api-version=VERSION"):
            ask_all([question(1)], judge_at(url), cache=None)


def test_a_key_for_azure_does_not_follow_a_redirect_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_KEY", KEY)
    with StubEndpoint(lambda body: VERDICT) as other:
        moved = StubReply("", 307, headers={"location": f"{other.url}/chat/completions?token={KEY}"})
        with (
            StubEndpoint(lambda body: moved) as stub,
            pytest.raises(EdgetuneError, match="redirects all requests to") as caught,
        ):
            ask_all([question(1)], judge_at(f"{stub.url}?api-version=1", key="GRADER_KEY"), cache=None)
        assert other.requests == []
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (f"http://h/v1?api-key={KEY}#m", "its query must hold no key"),
        (f"http://user:{KEY}@h/v1#m", "no user or password"),
        (f"http://h/v1?api_key={KEY}", "name of a model"),
        ("http://h/v1#m?api-version=1", "write it before the #"),
        ("http://h:port/v1#m", "no URL"),
        ("http:///v1#m", "name a host"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_showing_a_key(reference: str, says: str) -> None:
    with pytest.raises((RecipeError, UsageError), match=says) as caught:
        load_judge(reference)
    assert KEY not in str(caught.value)
