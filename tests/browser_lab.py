"""A JupyterLab server and a Chromium of our own, for tests that click.

Server, settings, kernels and runtime files live in one temporary folder, so that neither the user's JupyterLab nor its
settings are touched, and nothing listens beyond the loopback address.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

KERNEL = "mlipkit-test"
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
STATUS = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status"


class Lab:
    """A running server; `open` gives a page with a notebook in it."""

    def __init__(self, folder: Path, chromium: str) -> None:
        self.folder, self.chromium = folder, chromium
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = self._start_server()
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self.browser = self._playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        # One for all pages: JupyterLab's scripts are fetched and compiled once. Nothing of a page is kept but cookies.
        self.context = self.browser.new_context(reduced_motion="reduce")

    def _start_server(self) -> subprocess.Popen:
        settings = self.folder / "settings"
        news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
        kernel = self.folder / "data" / "kernels" / KERNEL
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps({
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "mlipkit test", "language": "python",
        }))  # fmt: skip
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            # A waiting line of its own: other runs of this user must not hold up the test.
            "MLIPKIT_QUEUE": str(self.folder / "queue"),
            "OMP_NUM_THREADS": "1",
        }
        self.log = open(self.folder / "server.log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={self.token}",
                f"--ServerApp.root_dir={self.work}", "--ServerApp.allow_root=True",
                "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
            ],
            env=environment, stdout=self.log, stderr=subprocess.STDOUT, cwd=self.work,
        )  # fmt: skip
        end = time.monotonic() + 180  # a second or two, on a machine that does nothing else
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url("/api/status"), timeout=2):
                return process
            time.sleep(0.2)
        process.kill()
        raise RuntimeError("JupyterLab did not start: " + (self.folder / "server.log").read_text()[-2000:])

    def url(self, path: str, port: int | None = None) -> str:
        """Address of a path on the server, with its token. `port`: another one that leads there."""
        return f"http://127.0.0.1:{port or self.port}{path}{'&' if '?' in path else '?'}token={self.token}"

    def write(self, name: str, cells: list[str]) -> Path:
        """A notebook with these code cells in the server's folder."""
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "mlipkit test", "language": "python"}
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        path = self.work / name
        nbformat.write(notebook, path)
        return path

    @contextlib.contextmanager
    def open(
        self, notebook: str, width: int = 1000, height: int = 900, dark: bool = False, port: int | None = None
    ) -> Iterator[LabPage]:
        """A browser window on a notebook of `work`; closes with its kernel. `port`: see `url`."""
        page = LabPage(self, notebook, width, height, dark, port)
        try:
            yield page
        finally:
            page.close()

    def shut_kernels(self) -> None:
        """End all kernels of the server."""
        with urllib.request.urlopen(self.url("/api/sessions"), timeout=10) as answer:
            sessions = json.load(answer)
        for session in sessions:
            request = urllib.request.Request(self.url(f"/api/sessions/{session['id']}"), method="DELETE")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=10).close()

    def close(self) -> None:
        self.browser.close()
        self._playwright.stop()
        with contextlib.suppress(OSError):
            self.shut_kernels()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


class LabPage:
    """A window of the browser with one notebook; keeps JavaScript errors and requests that left loopback."""

    def __init__(self, lab: Lab, notebook: str, width: int, height: int, dark: bool, port: int | None = None) -> None:
        self.lab, self.notebook, self.dark, self.port = lab, notebook, dark, port or lab.port
        self.context, self.size = lab.context, {"width": width, "height": height}
        self.errors: list[str] = []
        self.console: list[str] = []
        self.outside: list[str] = []
        self._open_tab()

    def _open_tab(self) -> None:
        self.page = self.context.new_page()
        self.page.set_viewport_size(self.size)
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"[:1500]))
        self.page.on("console", self._hear)
        self.page.on("request", self._watch)
        self.page.on("websocket", self._watch)
        self.page.goto(self.lab.url(f"/lab/tree/{self.notebook}?reset", self.port))
        self.page.wait_for_selector(".jp-Notebook")
        self.page.wait_for_function(f"() => {STATUS} === 'idle'")
        self.js("() => window.jupyterapp.shell.collapseLeft()")
        # The theme of the last page may or may not have been saved.
        self.set_theme("JupyterLab Dark" if self.dark else "JupyterLab Light")

    def save(self) -> None:
        """Save the notebook."""
        self.js("() => window.jupyterapp.commands.execute('docmanager:save')")

    def close_tab(self) -> None:
        """Close the tab; the kernel goes on."""
        self.page.remove_listener("request", self._watch)
        self.page.close()

    def reopen_tab(self) -> None:
        """Open the notebook again in a new tab of the same browser, on the kernel that it has."""
        self._open_tab()

    def _hear(self, message: Any) -> None:
        self.console.append(f"{message.type}: {message.text}")

    def _watch(self, request: Any) -> None:
        address = request.url
        local = (f"http://127.0.0.1:{self.port}/", f"ws://127.0.0.1:{self.port}/", "data:", "blob:", "about:")
        if not address.startswith(local):
            self.outside.append(address)

    def js(self, source: str, argument: Any = None) -> Any:
        """Evaluate a JavaScript function in the page."""
        return self.page.evaluate(source, argument)

    def set_theme(self, name: str) -> None:
        """Switch JupyterLab's theme and wait until it is there."""
        if self.js("() => document.body.dataset.jpThemeName") == name:
            return
        self.js("name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        self.page.wait_for_timeout(600)

    def run_all(self, wait: bool = True, timeout: float = 120) -> None:
        """Run all cells; with `wait` until the kernel is idle again and no cell is left to run."""
        self.js("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        if wait:
            self.page.wait_for_timeout(300)
            self.wait_idle(timeout)

    def wait_idle(self, timeout: float = 120) -> None:
        """Wait until the kernel is idle and no cell is left to run."""
        self.page.wait_for_function(
            f"""() => {STATUS} === 'idle' &&
                ![...document.querySelectorAll('.jp-InputArea-prompt')].some(n => n.textContent.includes('[*]'))""",
            timeout=timeout * 1000,
        )

    def restart_kernel(self) -> None:
        """Restart the kernel without asking."""
        self.js("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        self.page.wait_for_function(f"() => {STATUS} === 'idle'")

    def output(self) -> str:
        """Text of all outputs."""
        return self.js("() => [...document.querySelectorAll('.jp-OutputArea')].map(n => n.innerText).join('\\n')")

    def cell_errors(self) -> list[str]:
        """Texts of Python errors in the outputs."""
        return self.js(
            '() => [...document.querySelectorAll(\'[data-mime-type="application/vnd.jupyter.stderr"], '
            '[data-mime-type="application/vnd.jupyter.error"]\')].map(n => n.innerText)'
        )

    def click(self, text: str) -> None:
        """Click the button whose text holds `text`."""
        self.page.locator(".mlipkit-view button:visible", has_text=text).first.click()

    def wait_text(self, text: str, timeout: float = 30) -> None:
        """Wait until the text shows in an output; an error tells what does show."""
        from playwright.sync_api import TimeoutError as Late

        try:
            self.page.wait_for_function(
                "text => [...document.querySelectorAll('.jp-OutputArea')].some(n => n.innerText.includes(text))",
                arg=text, timeout=timeout * 1000,
            )  # fmt: skip
        except Late:
            raise AssertionError(f"'{text}' did not show within {timeout} s; there is: {self.output()}") from None

    def wait_traces(self, count: int) -> None:
        """Wait until plotly has drawn so many curves on the page."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('.js-plotly-plot .scatterlayer .trace').length >= count", arg=count
        )

    def points(self) -> list[list[int]]:
        """Number of points of every trace of every plot, as plotly itself counts them."""
        return self.js(
            "() => [...document.querySelectorAll('.js-plotly-plot')]"
            ".map(g => (g._fullData || []).map(t => t.x ? t.x.length : 0))"
        )

    def pixels(self, selector: str) -> bytes:
        """PNG of one element."""
        return self.page.locator(selector).first.screenshot()

    def healthy(self) -> None:
        """Assert what must hold of every page at any time."""
        broken = "() => [...document.querySelectorAll('.jupyter-widgets-error-widget')].map(n => n.innerText)"
        assert self.js(broken) == []
        assert "\n".join(self.errors) == ""
        assert self.outside == []

    def shot(self, name: str, selector: str = ".mlipkit-view") -> None:
        """Save a picture of a view in the folder named by MLIPKIT_SCREENSHOTS, if there is one."""
        folder = os.environ.get("MLIPKIT_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.locator(selector).first.screenshot(path=str(Path(folder) / f"{name}.png"))

    def close(self) -> None:
        self.page.remove_listener("request", self._watch)
        self.page.close()
        with contextlib.suppress(OSError):
            self.lab.shut_kernels()
