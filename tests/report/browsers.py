"""The browsers that the tests of the pages drive: Chromium and Firefox as they are installed, WebGL in software."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)

# as root, in a container, without GPU
QUIET = ("--no-sandbox", "--disable-dev-shm-usage")
_SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_NO_WEBGL = ("--disable-3d-apis", "--disable-gpu")


@contextmanager
def launched(engine: Any, name: str, webgl: bool = True) -> Iterator[Any]:
    """A running browser, driven by playwright; skips the test where it is not installed or cannot be driven."""
    with {"chromium": _chromium, "firefox": _firefox}[name](engine, webgl) as browser:
        yield browser


@contextmanager
def _chromium(engine: Any, webgl: bool) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    flags = _SOFTWARE_WEBGL if webgl else _NO_WEBGL
    browser = engine.chromium.launch(executable_path=CHROMIUM, args=[*flags, *QUIET])
    yield browser
    browser.close()


@contextmanager
def _firefox(engine: Any, webgl: bool) -> Iterator[Any]:
    """Firefox as its vendor builds it, over WebDriver BiDi; it has no WebGL without a screen, real or virtual."""
    if FIREFOX is None:
        pytest.skip("no Firefox: apt-get install firefox-esr")
    with _screen() as display:
        browser = engine.firefox.launch(
            channel="moz-firefox",
            executable_path=FIREFOX,
            env={**os.environ, "DISPLAY": display},
            firefox_user_prefs={"webgl.force-enabled": webgl, "webgl.disabled": not webgl},
        )
        try:
            _skip_where_not_understood(browser)
            yield browser
        finally:
            browser.close()


def _skip_where_not_understood(browser: Any) -> None:
    try:
        browser.new_context().close()
    except Exception as error:
        if "unknown command" not in str(error):
            raise
        pytest.skip(f"this playwright asks more than this Firefox can: {str(error).splitlines()[0]}")


@contextmanager
def _screen() -> Iterator[str]:
    if "DISPLAY" in os.environ:
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("no screen, real or virtual, for Firefox's WebGL: apt-get install xvfb")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        with os.fdopen(reading) as told:
            number = told.readline().strip()
        try:
            yield f":{number}"
        finally:
            server.terminate()
