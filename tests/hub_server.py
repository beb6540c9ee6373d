"""A small Hugging Face hub: what huggingface_hub calls to log in, upload and download, on this machine.

It has no Xet, so huggingface_hub is told to do without (HF_HUB_DISABLE_XET).
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_secretOfThisTest"   # noqa: S105
COMMIT = "0" * 40
LARGE = (".safetensors", ".gif")   # files that go through LFS


class Hub:
    """The repositories of a hub on which `user` is logged in by TOKEN."""

    def __init__(self, user: str = "jo", role: str = "write"):
        self.user, self.role = user, role
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}    # by SHA-256
        self.refused: dict[str, int] = {}    # part of a path -> the status to refuse it with
        self.calls: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def environment(self, home) -> dict[str, str]:
        """Return the variables that make huggingface_hub talk to this hub, with an empty cache in `home`."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def connect(self, patch, home) -> None:
        """Make huggingface_hub in this process, which has read its environment already, talk to this hub."""
        from huggingface_hub import constants

        patch.setenv("HF_TOKEN", TOKEN)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {"ENDPOINT": self.endpoint, "HF_HUB_CACHE": str(home), "HF_HUB_OFFLINE": False,
                            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + template,
                            "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}.items():
            patch.setattr(constants, name, value)


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer(self.find(), with_body=False)

    def do_GET(self) -> None:
        self.answer(self.find())

    def do_POST(self) -> None:
        self.answer(self.change())

    do_PUT = do_POST

    def find(self) -> tuple[int, bytes, dict[str, str]]:
        if refused := self.refusal():
            return refused
        if self.path == "/api/whoami-v2":
            return said({"name": self.hub.user, "type": "user", "orgs": [{"name": "studio"}],
                         "auth": {"accessToken": {"role": self.hub.role}}})
        asked = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/(?:revision|tree)/[^/]+)?()|"
                             r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        name, file = (part for part in asked.groups() if part is not None)
        if name not in self.hub.repositories:
            return said({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if "/tree/" in self.path:
            return said([{"type": "file", "path": path, "size": len(content), "oid": COMMIT}
                         for path, content in self.hub.repositories[name].items()])
        if not file:
            return said({"id": name, "sha": COMMIT,
                         "siblings": [{"rfilename": path} for path in self.hub.repositories[name]]})
        if file not in self.hub.repositories[name]:
            return said({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content = self.hub.repositories[name][file]
        return 200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}

    def change(self) -> tuple[int, bytes, dict[str, str]]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if refused := self.refusal():
            return refused
        path = self.path.partition("?")[0]
        if path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
            self.hub.large[path.removeprefix("/lfs/")] = body
            return said({})
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or self.hub.user}/{given['name']}"
            self.hub.repositories.setdefault(name, {})
            return said({"url": f"{self.hub.endpoint}/{name}"})
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return said({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return said({"transfer": "basic", "objects": [
                {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]]})
        name, action = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if action == "preupload":
            return said({"files": [{"path": file["path"], "shouldIgnore": False,
                                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                                   for file in json.loads(body)["files"]]})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.repositories[name][value["path"]] = self.hub.large[value["oid"]]
        return said({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def refusal(self) -> tuple[int, bytes, dict[str, str]] | None:
        self.hub.calls.append(f"{self.command} {self.path}")
        status = next((status for part, status in self.hub.refused.items() if part in self.path), None)
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not is_known and self.path.startswith("/api"):
            status = 401
        return said({"error": "You may not do this"}, status) if status else None

    def answer(self, answer: tuple[int, bytes, dict[str, str]], with_body: bool = True) -> None:
        status, content, headers = answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


def said(content, status: int = 200, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict]:
    return status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})}
