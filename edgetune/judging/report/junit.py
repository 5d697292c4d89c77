"""junit.xml: the gate as a test suite, for CI systems that show test results.

Each comparison is a test case, and so is the judge where there is one. REGRESSION is a failure. JUDGE INVALID is an
error of the judge's case, and what rests on its verdicts is skipped. INCONCLUSIVE is skipped, as a test is whose
assumptions were not met: it neither passed nor failed. Whether CI stops on it is up to the exit code (3, or 0 where
--inconclusive says so).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.explanation import explain
from edgetune.judging.gate.gate import NO_VERDICT, Verdict
from edgetune.judging.report.validity import judge_figures, was_judged
from edgetune.judging.results.judgement import Judgement

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow in a document, even escaped (section 2.2)."""


def report_junit(judgement: Judgement) -> bytes:
    """The file's bytes, UTF-8."""
    suite = ElementTree.Element("testsuite")
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"candidate": judgement.candidate.model, "exit code": str(judgement.exit_code)}
    if judgement.baseline is not None:
        facts["baseline"] = judgement.baseline.model
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    verdict = judgement.verdict
    if verdict is None:
        _skip(_case(suite, judgement, "comparison"), NO_VERDICT)
    else:
        for comparison in verdict.comparisons:
            _judge_case(_case(suite, judgement, comparison.title), comparison, verdict, judgement)
        if was_judged(judgement) or verdict.problems:
            _validity_case(_case(suite, judgement, "judge validity"), judgement, verdict)
    cases = suite.findall("testcase")
    name = f"edgetune judge {judgement.suite.name}"
    attributes: dict[str, object] = {
        "name": name,
        "tests": len(cases),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
        "time": f"{judgement.costs.seconds + sum(side.seconds or 0.0 for _, side in judgement.sides):.3f}",
        "timestamp": judgement.created.removesuffix("+00:00"),
    }
    for attribute, given in attributes.items():
        suite.set(attribute, str(given))
    suites = ElementTree.Element("testsuites", name=name)
    suites.append(suite)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _case(suite: ElementTree.Element, judgement: Judgement, name: str) -> ElementTree.Element:
    classname = f"edgetune.judge.{judgement.suite.name}"
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=_clean(name), time="0")


def _judge_case(case: ElementTree.Element, comparison: Comparison, verdict: Verdict, judgement: Judgement) -> None:
    text = explain(comparison)
    if verdict.outcome is Outcome.JUDGE_INVALID and judgement.compared[comparison.metric].is_judged:
        _skip(case, f"The judge cannot be trusted, so this means nothing: {text}")
    elif comparison.outcome is Outcome.REGRESSION:
        _tell(case, "failure", Outcome.REGRESSION, text)
    elif comparison.outcome is Outcome.INCONCLUSIVE:
        _skip(case, f"INCONCLUSIVE: {text}")
    else:
        ElementTree.SubElement(case, "system-out").text = _clean(text)


def _validity_case(case: ElementTree.Element, judgement: Judgement, verdict: Verdict) -> None:
    if verdict.problems:
        _tell(case, "error", Outcome.JUDGE_INVALID, "\n".join(verdict.problems))
    figures = "\n".join(f"{figure.title}: {figure.text}" for figure in judge_figures(judgement))
    if figures:
        ElementTree.SubElement(case, "system-out").text = _clean(figures)


def _tell(case: ElementTree.Element, kind: str, outcome: Outcome, text: str) -> None:
    message = _clean(text.partition("\n")[0])
    ElementTree.SubElement(case, kind, type=str(outcome), message=message).text = _clean(text)


def _skip(case: ElementTree.Element, why: str) -> None:
    ElementTree.SubElement(case, "skipped", message=_clean(why))


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
