"""The pytest plugin, run in pytest sessions of its own."""

from __future__ import annotations

import signal
from importlib.metadata import entry_points

import pytest

from trio_channels.testing.pytest_plugin import _interrupt

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

#: The entry point of an installed package loads the plugin; pytest fails if it is loaded twice.
INSTALLED = any(point.value == "trio_channels.testing.pytest_plugin" for point in entry_points(group="pytest11"))
ARGUMENTS = ["-p", "no:django", *([] if INSTALLED else ["-p", "trio_channels.testing.pytest_plugin"])]


@pytest.fixture(autouse=True)
def ini(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrio_mode = true\ntrio_channels_time_limit = 20\n")


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile("import pytest, trio\n" + source)
    return pytester.runpytest_inprocess(*ARGUMENTS, *arguments)


def test_installed_package_brings_the_plugin_by_itself(pytester: pytest.Pytester) -> None:
    if not INSTALLED:
        pytest.skip("this checkout is not installed")
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess("-p", "no:django", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.time_limit(seconds): *"])


def test_tests_in_time_pass_and_keep_their_fixtures_and_parameters(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture
async def base():
    yield 1

@pytest.mark.parametrize("n", [1, 2])
async def test_async(base, n, nursery, tmp_path):
    await trio.lowlevel.checkpoint()
    assert base + n in (2, 3)

class TestClass:
    async def test_method(self, base):
        assert base == 1

def test_sync():
    pass
""",
    )
    result.assert_outcomes(passed=4)


def test_threads_need_no_settings(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    pytester.makepyfile("""
from django.conf import settings
from trio_channels.sync import sync_to_async

async def test_call():
    assert not settings.configured
    assert await sync_to_async(int)("7") == 7
""")
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_test_over_time_is_cancelled_and_says_where_it_waited(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def stuck_child():
    await trio.sleep_forever()

@pytest.mark.time_limit(0.5)
async def test_stuck(nursery):
    nursery.start_soon(stuck_child)
    try:
        await trio.Event().wait()
    finally:
        print("cleaned up")
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_stuck was cancelled: still running after 0.5 seconds",
            "*stuck_child at *test_test_over_time*.py:*",
            "cleaned up",
        ]
    )


def test_seconds_of_a_limit_may_be_named(pytester: pytest.Pytester) -> None:
    source = "@pytest.mark.time_limit(seconds=0.5)\nasync def test_stuck(): await trio.sleep_forever()"
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was cancelled: still running after 0.5 seconds"])


@pytest.mark.parametrize("arguments", ["", "()", "('soon')", "(1, 2)", "(0)", "(second=1)"])
def test_limit_that_is_none_says_what_it_takes(pytester: pytest.Pytester, arguments: str) -> None:
    result = run(pytester, f"@pytest.mark.time_limit{arguments}\nasync def test_any(): pass")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*time_limit takes a number of seconds above 0*test_any has *"])


def test_limit_is_an_ini_option_too(pytester: pytest.Pytester) -> None:
    result = run(pytester, "async def test_stuck(): await trio.sleep_forever()", "-o", "trio_channels_time_limit=0.5")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was cancelled: still running after 0.5 seconds"])


def test_limit_counts_real_seconds(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.time_limit(20)
async def test_virtual(autojump_clock):
    await trio.sleep(1000)

@pytest.mark.time_limit(0.5)
async def test_stopped_clock(mock_clock):
    await trio.sleep(0.001)
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*::test_stopped_clock was cancelled*"])


def test_exception_of_the_test_is_not_hidden_by_the_limit(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.time_limit(0.5)
async def test_fails_while_cancelled():
    try:
        await trio.sleep_forever()
    finally:
        raise LookupError("while cleaning up")
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LookupError: while cleaning up"])


def test_one_example_beyond_its_time_fails_a_hypothesis_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from hypothesis import given, settings, strategies as st

@pytest.mark.time_limit(0.5)
@settings(max_examples=2)
@given(st.booleans())
async def test_stuck(x):
    await trio.sleep_forever()
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was cancelled: still running after 0.5 seconds*"])


def test_limit_that_passes_in_a_fixture_cancels_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture
async def slow():
    await trio.sleep(1)

@pytest.mark.time_limit(0.5)
async def test_stuck(slow):
    await trio.sleep_forever()
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was cancelled: still running after 0.5 seconds*"])


def test_limit_that_passes_between_two_examples_cancels_the_next(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import time
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

begun = []

@st.composite
def slow_after_the_first(draw):
    if begun:
        time.sleep(1)
    return draw(st.integers())

@pytest.mark.time_limit(0.5)
@settings(deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(slow_after_the_first())
async def test_stuck(n):
    begun.append(n)
    if len(begun) > 1:
        await trio.sleep_forever()
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*was cancelled: still running after 0.5 seconds*"])


def test_each_parameter_of_a_hypothesis_test_has_a_limit_of_its_own(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from hypothesis import given, settings, strategies as st

@pytest.mark.time_limit(0.5)
@pytest.mark.parametrize("n", [0, 1, 2])
@settings(max_examples=2)
@given(st.booleans())
async def test_stuck(n, x):
    if n != 1:
        await trio.sleep_forever()
""",
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*::test_stuck?0? was cancelled*", "*::test_stuck?2? was cancelled*"])


def test_exception_group_of_one_is_unwrapped(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.xfail(raises=LookupError, strict=True)
async def test_nested():
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery():
            raise LookupError
""",
    )
    result.assert_outcomes(xfailed=1)


def test_exception_group_of_several_stays_one(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.xfail(raises=LookupError, strict=True)
async def test_several():
    raise ExceptionGroup("both", [LookupError(), ValueError()])
""",
    )
    result.assert_outcomes(failed=1)


def test_test_can_skip_from_within_a_nursery(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def test_skips():
    async with trio.open_nursery():
        pytest.skip("not here")
""",
    )
    result.assert_outcomes(skipped=1)


def impatient(pytester: pytest.Pytester) -> None:
    """Have tests that cannot be cancelled end soon."""
    # A session started in the background may ignore Ctrl-C, and so may its children.
    pytester.makeconftest(
        """
import signal
from trio_channels.testing import pytest_plugin
pytest_plugin.GRACE = 0.05
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
    )


def test_test_stuck_in_a_thread_ends_the_session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)  # the inner session cannot import our settings
    impatient(pytester)
    pytester.makepyfile(
        """
import threading
import pytest
from trio_channels.sync import sync_to_async

@pytest.mark.time_limit(0.5)
async def test_stuck():
    await sync_to_async(threading.Event().wait)(60)
"""
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS, "-p", "no:faulthandler", timeout=120)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stderr.fnmatch_lines(
        ["*::test_stuck was cancelled: *", "*<test 'test_stuck'> at *", "*most recent call first*", "* in wait"]
    )


def test_main_thread_is_interrupted_without_real_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_kill")
    with pytest.raises(KeyboardInterrupt):
        _interrupt()


def test_test_with_a_stuck_fixture_ends_the_session(pytester: pytest.Pytester) -> None:
    impatient(pytester)
    pytester.makepyfile(
        """
import pytest, trio

@pytest.fixture
async def stuck():
    yield await trio.sleep_forever()

@pytest.mark.time_limit(0.5)
async def test_any(stuck):
    pass
"""
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS, "-p", "no:faulthandler", timeout=120)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stderr.fnmatch_lines(["*::test_any has not ended after 0.5 seconds, and could not be cancelled*"])


def test_test_that_freezes_the_loop_ends_the_session(
    pytester: pytest.Pytester,
) -> None:
    impatient(pytester)
    pytester.makepyfile(
        """
import threading
import pytest

@pytest.mark.time_limit(0.5)
async def test_frozen():
    threading.Event().wait(60)

async def test_never_reached():
    print("reached")
"""
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS, "-p", "no:faulthandler", timeout=120)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stderr.fnmatch_lines(
        ["*::test_frozen has not ended after 0.5 seconds*", "*most recent call first*", "*in test_frozen"]
    )
    assert "reached" not in result.stdout.str().replace("test_never_reached", "")


def test_examples_after_the_limit_are_cancelled(pytester: pytest.Pytester) -> None:
    source = """
from hypothesis import Phase, given, settings, strategies as st

seen = []

@pytest.mark.time_limit(0.5)
@settings(deadline=None, database=None, phases=[Phase.generate])  # to shrink the example takes long on a busy machine
@given(st.integers())
async def test_stuck(n):
    seen.append(trio.current_effective_deadline())
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise ValueError("which Hypothesis tries again")

def test_seen():
    assert len(seen) > 1 and set(seen[1:]) == {float("-inf")}
"""
    result = run(pytester, source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*which Hypothesis tries again*"])


def test_work_after_the_run_of_a_test_is_not_limited(pytester: pytest.Pytester) -> None:
    source = """
@pytest.mark.time_limit(0.2)
async def test_quick():
    pass
"""
    # A hook, as another plugin may have one: it works on beyond the test's limit.
    pytester.makeconftest(
        """
import pytest, threading

@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    result = yield
    for thread in threading.enumerate():
        if thread.name == "test time limit":
            thread.join()
    return result
"""
    )
    run(pytester, source).assert_outcomes(passed=1)
