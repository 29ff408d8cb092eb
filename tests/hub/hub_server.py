"""The protocol of the Hugging Face Hub, as much of it as huggingface_hub speaks for models, on loopback."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".npz", ".pth", ".bin")  # held by LFS, of which the hub states the SHA-256


@dataclasses.dataclass
class Repo:
    """Commits by their hash, oldest first, and the branches that point to them."""

    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)
    private: bool = False
    messages: list[str] = dataclasses.field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main", message: str = "") -> str:
        """A commit that has these files, and no others."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def head(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
      repos: by OWNER/NAME.
      asked: (method, path, headers with lower-case names) of every request.
      failing: start of a path -> status and X-Error-Code with which it is answered.
      cut: name of a file -> how many bytes of it the next downloads send before the connection is lost, one each.
      wrong: name of a file -> the bytes that are sent in place of its own.
      token: that is asked for by private repositories and by whoever writes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.failing: dict[str, tuple[int, str]] = {}
        self.cut: dict[str, list[int]] = {}
        self.wrong: dict[str, bytes] = {}
        self.token = "hf_secret"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def requests(self, method: str, part: str) -> list[dict[str, str]]:
        """The headers of the requests of a method whose path has `part` in it."""
        return [headers for m, path, headers in self.asked if m == method and part in path]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none."""


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """A server, until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, content: object = b"", status: int = 200, code: str = "", **headers: object) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if code:
            headers |= {"X-Error-Code": code, "X-Error-Message": f"the words for {code}"}
        for name, value in ({"Content-Length": len(data)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        for start, (status, code) in self.server.failing.items():
            if path.startswith(start):
                return self.answer(status=status, code=code)
        words = path.strip("/").split("/")
        authorized = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if (
            self.command in ("POST", "PUT")
            and words[:1] != ["lfs"]
            and "paths-info" not in words
            and not authorized
        ):
            return self.answer(status=401)
        if words[:2] == ["api", "repos"]:
            return self.create()
        if words[:2] == ["api", "validate-yaml"]:
            return self.answer({})
        if words[0] == "lfs":
            assert hashlib.sha256(self.body).hexdigest() == words[1]
            self.server.large[words[1]] = self.body
            return self.answer()
        api = words[:2] == ["api", "models"]
        owner, name, *rest = words[2:] if api else words
        repo = self.server.repos.get(f"{owner}/{name.removesuffix('.git')}")
        if repo is None or (repo.private and not authorized):
            return self.answer(status=404 if authorized else 401, code="RepoNotFound")
        what = rest[0] if rest else "revision"
        # A revision may have slashes in it; those of the tests that have are branches of the repository.
        inside = "/".join(rest[1:]) or "main"
        known = [r for r in (*repo.branches, *repo.commits) if inside == r or inside.startswith(f"{r}/")]
        if what == "branch":
            if inside in repo.branches:
                return self.answer(status=409)
            repo.branches[inside] = repo.branches["main"]
            return self.answer({})
        if name.endswith(".git"):
            return self.batch()
        if not known:
            return self.answer(status=404, code="RevisionNotFound")
        revision = max(known, key=len)
        sha, inside = repo.head(revision), inside.removeprefix(revision).strip("/")
        getattr(self, what.replace("-", "_"))(f"{owner}/{name}", repo, revision, sha, inside)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def revision(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        self.answer(dict(id=name, sha=sha, private=repo.private, tags=[], siblings=[], downloads=0, likes=0))

    def tree(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        start = f"{inside}/" if inside else ""
        files = {p: d for p, d in repo.commits[sha].items() if p.startswith(start)}
        if not files:
            return self.answer(status=404, code="EntryNotFound")
        here = [self.entry(p, d) for p, d in files.items() if "/" not in p[len(start) :]]
        folders = {start + p[len(start) :].split("/")[0] for p in files if "/" in p[len(start) :]}
        self.answer(here + [dict(type="directory", path=p, oid="0" * 40, size=0) for p in sorted(folders)])

    def paths_info(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        files = repo.commits[sha]
        self.answer([self.entry(p, files[p]) for p in parse_qs(self.body.decode())["paths"] if p in files])

    def entry(self, path: str, data: bytes) -> dict:
        found = dict(type="file", path=path, size=len(data), oid=git_sha1(data))
        if path.endswith(LARGE):
            found["lfs"] = dict(oid=hashlib.sha256(data).hexdigest(), size=len(data), pointerSize=100)
        return found

    def resolve(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        if inside not in repo.commits[sha]:
            return self.answer(status=404, code="EntryNotFound", X_Repo_Commit=sha)
        data = repo.commits[sha][inside]
        etag = hashlib.sha256(data).hexdigest() if inside.endswith(LARGE) else git_sha1(data)
        headers = dict(ETag=f'"{etag}"', X_Repo_Commit=sha, Accept_Ranges="bytes")
        if inside.endswith(LARGE):
            headers |= dict(ETag='"of the CDN"', X_Linked_Etag=f'"{etag}"', X_Linked_Size=len(data))
        data = self.server.wrong.get(inside, data)
        if self.command == "HEAD":
            return self.answer(data, **headers)
        start = 0
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").partition("-")[0])
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if cuts := self.server.cut.get(inside):
            self.close_connection = True
            sent = data[start : start + cuts.pop(0)]
            self.send_response(206 if given else 200)
            for key, value in (headers | {"Content-Length": len(data) - start}).items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(sent)
            return None
        self.answer(data[start:], 206 if given else 200, **headers)

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        repo = self.server.repos.setdefault(name, Repo(private=asked.get("visibility") == "private"))
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
        self.answer(dict(url=f"{self.server.url}/{name}"))

    def preupload(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        files = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [
            dict(path=p, uploadMode="lfs" if p.endswith(LARGE) else "regular", shouldIgnore=False)
            for p in files
        ]
        self.answer(dict(files=modes))

    def batch(self) -> None:
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.server.large:
                item["actions"] = dict(upload=dict(href=f"{self.server.url}/lfs/{item['oid']}", header={}))
        self.answer(dict(transfer="basic", objects=objects))

    def commit(self, name: str, repo: Repo, revision: str, sha: str, inside: str) -> None:
        files, message = dict(repo.commits[sha]), ""
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        made = repo.commit(files, revision, message)
        self.answer(dict(commitUrl=f"{self.server.url}/{name}/commit/{made}", commitOid=made, success=True))


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
