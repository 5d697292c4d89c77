"""Keys come from the environment, else from .env in the working folder, and are seen by their service alone."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.judged import grades, judged_suite, write_outputs, write_rows
from support.stub_endpoint import StubEndpoint, error_reply

from edgetune.errors import UsageError
from edgetune.judging.subjects.endpoint import open_endpoint
from edgetune.judging.suites.judge_file import EndpointJudge, load_judge
from edgetune.keys import LARGEST_FILE_BYTES, find_hub_token, find_key

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "GRADER_KEY")
SECRET = "sk-5e3r1c-$HOME-0123456789abcdef0123456789abcdef"
"""Long enough for wandb, and with what an interpolation would replace."""
HUB_TOKEN = "hf_ofTheFile0123456789"
WANDB_KEY = "4d617920746865206b65792072657374206865726531"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no key in the environment."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in (*NAMES, "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def write_env(text: str | bytes) -> None:
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())


def refusal(variable: str = "GRADER_KEY") -> str:
    """What a user reads when .env is looked into; no traceback shows more."""
    with pytest.raises(UsageError) as caught:
        find_key(variable)
    assert caught.value.exit_code == 2
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def assert_nowhere(secret: str, folder: Path) -> None:
    """No file under `folder` but .env holds the secret, plain or in base64."""
    needles = [secret.encode(), base64.b64encode(secret.encode()), base64.b64encode(f"api:{secret}".encode())]
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".env"]
    assert files
    for file in files:
        content = file.read_bytes()
        assert not any(needle in content for needle in needles), file


# What a file may look like


@pytest.mark.parametrize(
    "line",
    [
        f"GRADER_KEY={SECRET}",
        f"export GRADER_KEY={SECRET}",
        f"GRADER_KEY = {SECRET}  ",
        f"GRADER_KEY='{SECRET}'",
        f'GRADER_KEY="{SECRET}"  # mine',
        f"# a comment\r\n\r\nGRADER_KEY={SECRET}\r\nOTHER=1\r\n",
        f"\ufeffGRADER_KEY={SECRET}\n",
        f"GRADER_KEY=older\nGRADER_KEY={SECRET}",
    ],
)
def test_a_key_is_read_as_a_shell_would_and_dollars_are_plain(line: str) -> None:
    write_env(line)
    assert find_key("GRADER_KEY") == SECRET


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "GRADER_KEY=", "GRADER_KEY=''", "GRADER_KEY", "OTHER_KEY=1"])
def test_a_file_without_the_key_has_none(text: str) -> None:
    write_env(text)
    assert find_key("GRADER_KEY") is None


def test_without_a_file_there_is_no_key(here: Path) -> None:
    assert find_key("GRADER_KEY") is None
    (here.parent / ".env").write_text(f"GRADER_KEY={SECRET}")  # folders above are not searched
    assert find_key("GRADER_KEY") is None
    Path(".env").mkdir()  # a virtual environment
    (here / ".env" / "pyvenv.cfg").touch()
    assert find_key("GRADER_KEY") is None
    Path(".env").rename("venv")
    Path(".env").symlink_to("/dev/null")
    assert find_key("GRADER_KEY") is None


def test_the_environment_goes_before_the_file_even_where_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    write_env(f"GRADER_KEY={SECRET}")
    monkeypatch.setenv("GRADER_KEY", " of-the-environment\n")
    assert find_key("GRADER_KEY") == "of-the-environment"
    monkeypatch.setenv("GRADER_KEY", "")
    assert find_key("GRADER_KEY") is None
    write_env('GRADER_KEY="not closed')
    assert find_key("GRADER_KEY") is None  # the file is not read at all


def test_nothing_of_the_file_enters_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_env(f"PATH=/nowhere\nLD_PRELOAD=evil.so\nEDGETUNE_CACHE=/nowhere\nHF_HOME=/nowhere\nGRADER_KEY={SECRET}\n")
    before = dict(os.environ)
    assert find_key("GRADER_KEY") == SECRET
    assert find_hub_token() is None
    assert dict(os.environ) == before


# What cannot be read


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"GRADER_KEY {SECRET}", 1),
        (f"GRADER_KEY: {SECRET}\nA=1", 1),
        (f"A=1\n\n# comment\n\n  GRADER_KEY '{SECRET}'\n", 5),
        (f"A=1\r\n\r\nGRADER_KEY='{SECRET}\r\n", 3),
        (f'A=1\nGRADER_KEY="{SECRET}', 2),
        (f"GRADER_KEY='{SECRET}' {SECRET}", 1),
        (f"set GRADER_KEY={SECRET}", 1),
        (f"A=1\nGRADER_KEY={SECRET}\nB\xff=1".encode("latin-1"), 3),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_its_line_and_not_by_its_text(text: str | bytes, line: int) -> None:
    write_env(text)
    said = refusal()
    assert said.startswith(f".env:{line}: ")
    assert "GRADER_KEY in the environment" in said


def test_a_file_in_utf_16_as_powershell_writes_it_is_refused() -> None:
    write_env(f"GRADER_KEY={SECRET}".encode("utf-16"))
    assert refusal().startswith(".env:1: is not UTF-8 text; save it as UTF-8, or set GRADER_KEY in the environment")


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo(".env")
    assert refusal().startswith(".env: is a named pipe")


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    Path(".env").symlink_to("/dev/zero")
    assert "larger than 1 MiB" in refusal()
    Path(".env").unlink()
    write_env("#" * (LARGEST_FILE_BYTES + 1))
    assert "larger than 1 MiB" in refusal()


def test_a_file_that_the_system_does_not_open_is_told_with_its_reason() -> None:
    Path(".env").symlink_to(".env")
    assert refusal().startswith(".env: cannot be read (Too many levels of symbolic links)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_told() -> None:
    write_env(f"GRADER_KEY={SECRET}")
    Path(".env").chmod(0)
    assert refusal().startswith(".env: cannot be read (Permission denied)")


@pytest.mark.parametrize("value", ["“curly”", "two words", '"line\\nbreak"'])
def test_a_value_that_no_key_can_have_is_refused_unseen(value: str) -> None:
    write_env(f"GRADER_KEY={value}")
    said = refusal()
    assert said.startswith(".env: GRADER_KEY holds characters that no key has")
    assert not any(word in said for word in ("curly", "words", "break;"))


# Judges and models behind endpoints


@contextmanager
def stub_judge(folder: Path, answer: Callable[[dict], Any] = lambda body: grades(4)) -> Iterator[StubEndpoint]:
    """An endpoint, with a suite and outputs in `folder` and judge.yaml, whose key is GRADER_KEY."""
    judged_suite(folder / "suite", items=10)
    write_outputs(folder / "new.jsonl", [f"answer {number}" for number in range(10)])
    with StubEndpoint(answer) as stub:
        judge = {"name": "stub", "model": "stub", "url": stub.url, "key": "GRADER_KEY", "connections": 2}
        (folder / "judge.yaml").write_text(yaml.safe_dump(judge))
        yield stub


JUDGING = ("judge", "suite/suite.yaml", "--model", "new.jsonl", "--judge", "judge.yaml")


def test_a_judges_key_reaches_its_endpoint_and_no_other_place(
    here: Path, edgetune_command: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EDGETUNE_CACHE", str(here / "cache"))
    caplog.set_level(logging.DEBUG)
    write_env(f"OPENAI_API_KEY=another\nGRADER_KEY={SECRET}\nEDGETUNE_CACHE=/nowhere\n")
    before = {**os.environ, "GOMP_SPINCOUNT": "1000"}  # the command line sets it
    with stub_judge(here) as stub:
        plain = edgetune_command(*JUDGING, "--out", "report")
        document = edgetune_command(*JUDGING, "--out", "report-2", "--no-cache", "--json")
        assert len(stub.requests) >= 20
        assert {request.headers["authorization"] for request in stub.requests} == {f"Bearer {SECRET}"}
    assert (plain.exit_code, document.exit_code) == (0, 0)
    assert json.loads(document.stdout)
    assert dict(os.environ) == before
    assert {"report", "report-2", "cache"} <= {path.name for path in here.iterdir()}
    assert_nowhere(SECRET, here)
    assert SECRET not in plain.stdout + plain.stderr + document.stdout + document.stderr + caplog.text


def test_a_key_that_the_endpoint_repeats_in_an_error_is_hidden(here: Path, edgetune_command: Callable) -> None:
    write_env(f"GRADER_KEY={SECRET}")
    with stub_judge(here, lambda body: error_reply(401, f"no such key: {SECRET}")):
        refused = edgetune_command(*JUDGING)
    assert refused.exit_code == 2
    assert "check the key in GRADER_KEY" in refused.stderr
    assert SECRET not in refused.stdout + refused.stderr


@pytest.mark.parametrize("wanted", [(), ("--json",)])
def test_a_command_that_needs_a_key_ends_at_a_broken_file(
    wanted: tuple[str, ...], here: Path, edgetune_command: Callable
) -> None:
    write_env(f"# mine\nGRADER_KEY {SECRET}\n")
    with stub_judge(here) as stub:
        refused = edgetune_command(*JUDGING, *wanted)
        assert not stub.requests
    assert refused.exit_code == 2
    assert re.fullmatch(r"error: \.env:2: .*GRADER_KEY in the environment.*\n", refused.stderr)
    assert SECRET not in refused.stdout + refused.stderr
    if wanted:
        assert json.loads(refused.stdout)["exit_code"] == 2


def test_a_command_that_needs_no_key_does_not_read_the_file(here: Path, edgetune_command: Callable) -> None:
    os.mkfifo(".env")
    with stub_judge(here):
        (here / "judge.yaml").write_text((here / "judge.yaml").read_text().replace("GRADER_KEY", "null"))
        assert edgetune_command(*JUDGING).exit_code == 0
    assert edgetune_command("recipes").exit_code == 0


def test_a_missing_key_is_told_with_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = EndpointJudge(name="stub", model="stub", key="GRADER_KEY")
    with pytest.raises(UsageError, match=r"^stub: its key GRADER_KEY is not set; export GRADER_KEY=.*\.env.*key: null"):
        judge.read_key()
    monkeypatch.setenv("GRADER_KEY", "")
    write_env(f"GRADER_KEY={SECRET}")
    with pytest.raises(UsageError, match=r"^stub: its key GRADER_KEY is empty in the environment.*unset it"):
        judge.read_key()


def test_a_key_that_stands_in_the_judges_file_itself_is_refused_unseen() -> None:
    with pytest.raises(UsageError, match="must be the name of a variable") as caught:
        EndpointJudge(name="stub", model="stub", key=SECRET).read_key()
    assert SECRET not in str(caught.value)


def test_an_endpoint_by_its_address_takes_openais_key_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:9/v1#model"

    def keys() -> list[str | None]:
        judge = load_judge(address)
        assert isinstance(judge, EndpointJudge)
        return [judge.key, open_endpoint(address)._address.key]

    assert keys() == [None, None]
    write_env(f"OPENAI_API_KEY={SECRET}")
    assert keys() == ["OPENAI_API_KEY"] * 2
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert keys() == [None, None]


# The hub and wandb, in processes of their own: their libraries read the environment when they are imported


Answer = Callable[[str, str], tuple[int, dict[str, str], bytes]]
"""From a request's method and path to status, headers and body."""


class Service(ThreadingHTTPServer):
    """Answers on loopback, and remembers the keys that came with the requests: bearer tokens and basic passwords."""

    def __init__(self, answer: Answer) -> None:
        self._keys: list[tuple[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                kind, _, value = self.headers.get("authorization", "").partition(" ")
                key = base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else value
                service._keys.append((self.path, key))
                status, headers, body = answer(self.command, self.path)
                self.send_response(status)
                for name, text in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            do_GET = do_HEAD = do_POST = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def keys(self, within: str = "") -> set[str]:
        """The keys of requests whose path has `within`; one without a key counts as the empty text."""
        return {key for path, key in self._keys if within in path}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Service:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.shutdown()
        self.server_close()


SHA = "0" * 40
CONFIG = b'{"model_type": "llama"}'
ROWS = b"".join(b'{"prompt": "question %d", "completion": "answer"}\n' % number for number in range(3))


def hub_with(kind: str, file: str, content: bytes) -> Answer:
    """A hub that has owner/name, of kind "models" or "datasets", with one file."""
    entry = {"type": "file", "path": file, "size": len(content), "oid": SHA}

    def answer(method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith(f"/api/{kind}/owner/name"):
            info = {"id": "owner/name", "sha": SHA, "siblings": [{"rfilename": file}], "tags": []}
            value = [entry] if "/tree/" in path or "/paths-info/" in path else info
            return 200, {"content-type": "application/json"}, json.dumps(value).encode()
        if path.endswith(f"/{file}"):
            return 200, {"etag": f'"{SHA}"', "x-repo-commit": SHA}, content
        return 404, {"x-error-code": "EntryNotFound", "x-repo-commit": SHA}, b"{}"

    return answer


def in_process(program: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in a process that keeps all its files in the working folder and `home`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "WANDB_"))}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf")}
    environment |= {"NETRC": str(home / "netrc"), "EDGETUNE_CACHE": str(home / "edgetune"), "NO_PROXY": "127.0.0.1"}
    environment |= variables
    home.mkdir(exist_ok=True)
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


LOCATE = """
import os
from edgetune.models.locate import locate_model
before = dict(os.environ)
print((locate_model("owner/name").folder / "config.json").read_text())
assert dict(os.environ) == before
"""


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({}, HUB_TOKEN),
        ({"HF_TOKEN": "hf_ofTheEnvironment"}, "hf_ofTheEnvironment"),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_ofTheEnvironment"}, "hf_ofTheEnvironment"),
        ({"HF_TOKEN": ""}, "hf_stored"),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, ""),
    ],
)
def test_the_hub_gets_the_token_of_the_environment_of_the_file_or_of_its_login(
    variables: dict[str, str], sent: str, here: Path
) -> None:
    home = here / "home"
    (home / "hf").mkdir(parents=True)
    (home / "hf" / "token").write_text("hf_stored")
    write_env(f"HF_TOKEN={HUB_TOKEN}\nHF_HOME=/nowhere\n")
    with Service(hub_with("models", "config.json", CONFIG)) as hub:
        done = in_process(LOCATE, home, HF_ENDPOINT=hub.url, **variables)
    assert done.stdout.strip() == CONFIG.decode(), done.stderr
    assert hub.keys("owner/name") == {sent}
    assert_nowhere(HUB_TOKEN, here)
    assert HUB_TOKEN not in done.stdout + done.stderr


def test_without_a_token_in_the_file_the_hub_gets_the_stored_login(here: Path) -> None:
    home = here / "home"
    (home / "hf").mkdir(parents=True)
    (home / "hf" / "token").write_text("hf_stored")
    write_env("HF_TOKEN=\n")
    with Service(hub_with("models", "config.json", CONFIG)) as hub:
        done = in_process(LOCATE, home, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert hub.keys("owner/name") == {"hf_stored"}
    with pytest.raises(AssertionError, match="home/hf/token"):
        assert_nowhere("hf_stored", here)


def test_a_model_that_the_hub_does_not_show_is_told_with_where_a_token_goes(here: Path) -> None:
    with Service(lambda method, path: (401, {"x-error-code": "RepoNotFound"}, b"{}")) as hub:
        done = in_process(
            "from edgetune.models.locate import locate_model\nlocate_model('owner/name')",
            here / "home",
            HF_ENDPOINT=hub.url,
        )
    assert "hf auth login`, or set HF_TOKEN in the environment or in .env in this folder" in done.stderr


def test_a_data_set_is_asked_for_with_the_token_of_the_file(here: Path) -> None:
    pytest.importorskip("datasets")
    write_env(f"HF_TOKEN={HUB_TOKEN}\n")
    program = (
        "from edgetune.data.read import read_rows\n"
        "from edgetune.recipe.data import DataSource\n"
        "print(len(read_rows(DataSource(source='owner/name', format='prompt-completion'))))"
    )
    with Service(hub_with("datasets", "train.jsonl", ROWS)) as hub:
        done = in_process(program, here / "home", HF_ENDPOINT=hub.url)
    assert done.stdout.strip() == "3", done.stderr
    assert hub.keys("owner/name") == {HUB_TOKEN}
    assert_nowhere(HUB_TOKEN, here)
    assert HUB_TOKEN not in done.stderr


TRAIN = """
import sys
from edgetune.cli.app import main
sys.argv = ["edgetune", "train", "tiny.yaml", "--out", "run"]
main()
"""


def write_recipe(model: Path) -> None:
    write_rows(Path("rows.jsonl"), [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(4)])
    recipe = {
        "name": "tiny",
        "task": "classify",
        "base": {"model": str(model), "dtype": "float32"},
        "data": {"train": [{"source": "rows.jsonl", "format": "text-label"}], "labels": ["a", "b"], "prompt": "{text}"},
        "method": {"type": "lora", "rank": 2},
        "train": {"max_steps": 2, "batch_size": 2, "trackers": ["tensorboard", "wandb"], "energy": True},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(recipe))


def test_a_training_gives_wandb_its_key_and_keeps_no_key_in_the_run(here: Path, tiny_llama: Path) -> None:
    for library in ("wandb", "tensorboard", "codecarbon"):
        pytest.importorskip(library)
    write_env(f"HF_TOKEN={HUB_TOKEN}\nWANDB_API_KEY={WANDB_KEY}\nOPENAI_API_KEY={SECRET}\nWANDB_PROJECT=not-read\n")
    write_recipe(tiny_llama)
    with Service(lambda method, path: (401, {}, b"{}")) as wandb:
        done = in_process(TRAIN, here / "home", WANDB_BASE_URL=wandb.url)
    assert done.returncode == 0, done.stderr
    assert (here / "run" / "summary.json").exists()
    assert WANDB_KEY in wandb.keys() <= {WANDB_KEY, ""}
    assert not (here / "home" / "netrc").exists()
    for secret in (HUB_TOKEN, WANDB_KEY, SECRET):
        assert_nowhere(secret, here)
        assert secret not in done.stdout + done.stderr
    assert_nowhere("not-read", here)


def test_a_training_ends_before_any_work_where_wandbs_key_cannot_be_read(here: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    write_env(f"WANDB_API_KEY {WANDB_KEY}\n")
    write_recipe(here / "no-such-model")
    done = in_process(TRAIN, here / "home")
    assert done.returncode == 2
    assert done.stderr.startswith("error: .env:1: ")
    assert WANDB_KEY not in done.stdout + done.stderr
    assert not (here / "run").exists()
    assert "no-such-model" in in_process(TRAIN, here / "home", WANDB_MODE="offline").stderr


# What ships


def test_the_template_names_every_key_and_sets_none() -> None:
    template = (ROOT / "deploy" / "env.template").read_text(encoding="utf-8")
    write_env(template)
    assert [find_key(name) for name in NAMES] == [None] * len(NAMES)
    assert re.findall(r"^(?:# )?(\w+)=$", template, flags=re.MULTILINE) == list(NAMES)
    write_env(re.sub(r"^(?:# )?(\w+)=$", rf"\1={SECRET}", template, flags=re.MULTILINE))
    assert [find_key(name) for name in NAMES] == [SECRET] * len(NAMES)


def test_the_page_about_keys_shows_the_template() -> None:
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert f"```sh\n{(ROOT / 'deploy' / 'env.template').read_text(encoding='utf-8')}```" in page
