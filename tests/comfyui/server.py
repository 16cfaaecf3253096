"""A ComfyUI of its own, driven through its HTTP API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def api_prompt(graph: dict[str, Any], nodes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A workflow as the page saves it, in the form that ``/prompt`` takes.

    Args:
        graph: the workflow.
        nodes: what ``/object_info`` says.
        changes: ``NODECLASS__input`` and its value.
    """
    origins = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    found = {}
    for node in graph["nodes"]:
        linked = {one["name"]: origins[one["link"]] for one in node["inputs"] if one["link"] is not None}
        info, order = nodes[node["type"]]["input"], nodes[node["type"]]["input_order"]
        values, inputs = iter(node["widgets_values"]), {}
        for kind in ("required", "optional"):
            for name in order.get(kind, []):
                declared = info[kind][name][0]
                if name in linked:
                    inputs[name] = linked[name]
                elif isinstance(declared, list) or declared in _WIDGETS:
                    inputs[name] = next(values)
        for key, value in changes.items():
            kind, _, name = key.partition("__")
            if kind == node["type"]:
                inputs[name] = value
        found[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return found


class ComfyUI:
    """A server in its own process and folder.

    Args:
        source: ComfyUI's checkout.
        python: an interpreter with its requirements and fluxsr's.
        base: folder for its models, pictures and settings.
        pythonpath: folder of the ``fluxsr`` to import.
    """

    def __init__(self, source: Path, python: str, base: Path, pythonpath: Path) -> None:
        self.base, self.address = base, f"http://127.0.0.1:{(port := free_port())}"
        for name in ("custom_nodes", "input", "output", "models", "user", "temp"):
            (base / name).mkdir(parents=True, exist_ok=True)
        self.log = base / "log.txt"
        options = ["--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, str(source / "main.py"), *options, "--base-directory", str(base)],
            cwd=base,
            env={**os.environ, "PYTHONPATH": str(pythonpath)},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                self.nodes = self.get("/object_info")
                break
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None or time.perf_counter() - started > 120:
                    self.close()
                    raise RuntimeError(self.log.read_text()) from None
                time.sleep(0.5)
        self.seconds = time.perf_counter() - started

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """Send JSON; the answer's."""
        request = urllib.request.Request(
            self.address + path, json.dumps(content or {}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def begin(self, prompt: dict[str, Any]) -> str:
        """Queue a workflow; its id."""
        return self.post("/prompt", {"prompt": prompt})["prompt_id"]

    def end(self, prompt_id: str, seconds: float = 120) -> dict[str, Any]:
        """What became of it."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            if prompt_id in (history := self.get(f"/history/{prompt_id}")):
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text())

    def run(self, prompt: dict[str, Any]) -> Path:
        """Run a workflow; the first picture that it saved."""
        result = self.end(self.begin(prompt))
        assert result["status"]["status_str"] == "success", result["status"]
        image = next(one["images"][0] for one in result["outputs"].values() if "images" in one)
        return self.base / "output" / image["subfolder"] / image["filename"]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
