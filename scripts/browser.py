# SPDX-License-Identifier: MPL-2.0
"""A headless Chromium for the checks of pages. It and its driver are those on the PATH, or those that CHROMIUM and CHROMEDRIVER name."""

import contextlib
import os
import shutil

import harness


def program(variable, *names):
    """Returns the path of a program that a variable names, or that is installed under one of its names."""
    candidates = [os.environ.get(variable), *map(shutil.which, names)]
    path = next((path for path in candidates if path), None)
    if path is None:
        raise harness.Failure(
            f"none of {', '.join(names)} is installed. On Debian: apt install chromium chromium-driver; on Ubuntu: snap install"
            f" chromium. For another Chromium and its driver, set CHROMIUM and CHROMEDRIVER to their paths"
        )
    return path


@contextlib.contextmanager
def chromium():
    try:
        from selenium import webdriver
    except ImportError:
        raise harness.Failure("selenium is missing: run scripts/setup.sh test") from None
    options = webdriver.ChromeOptions()
    options.binary_location = program("CHROMIUM", "chromium", "google-chrome")
    flags = [
        "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--mute-audio", "--window-size=1000,800", "--hide-scrollbars",
        # /dev/shm is small in containers.
        "--disable-dev-shm-usage",
    ]
    if os.geteuid() == 0:
        # Root can't use the sandbox.
        flags.append("--no-sandbox")
    for flag in flags:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(program("CHROMEDRIVER", "chromedriver", "chromium.chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()
