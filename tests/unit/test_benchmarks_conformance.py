"""Counting conformance: what pytest reports becomes cases, and cases become figures."""

from __future__ import annotations

from unit.test_benchmarks_coldstart import benchmark

conformance = benchmark("conformance")
Case, Run, figures, read = conformance.Case, conformance.Run, conformance.figures, conformance.read

REPORT = """<testsuites><testsuite>
<testcase classname="tests.conformance.test_life" name="test_a_host"/>
<testcase classname="tests.conformance.test_life" name="test_a_path"><skipped message="no  path
 here"/></testcase>
<testcase classname="tests.conformance.test_pairs" name="test_lock"><failure message="421"/></testcase>
<testcase classname="tests.conformance.test_rollout" name="test_good"><error message="no API"/></testcase>
</testsuite></testsuites>"""


def test_a_report_becomes_cases() -> None:
    assert read(REPORT) == (
        Case("test_life::test_a_host", "passed"),
        Case("test_life::test_a_path", "skipped", "no path here"),
        Case("test_pairs::test_lock", "failed", "421"),
        Case("test_rollout::test_good", "failed", "no API"),
    )


def test_what_did_not_pass_is_not_counted_and_is_named() -> None:
    run = Run("cluster", read(REPORT))
    assert run.line() == "cluster 1 of 4, 2 failed, 1 skipped"
    found = {each.metric: each for each in figures([Run("local", run.cases[:1]), run])}
    values = {name: each.value for name, each in found.items()}
    assert values == {"conformance.total": 4, "conformance.local.passed": 1, "conformance.cluster.passed": 1}
    note = found["conformance.cluster.passed"].note
    assert "failed: test_pairs::test_lock (421)" in note
    assert "skipped: test_life::test_a_path (no path here)" in note
