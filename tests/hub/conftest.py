"""A hub on loopback, to which huggingface_hub is led in this process; and what the authors' files look like on it."""

import hub_server
import published_files
import pytest


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server; an empty cache, no token, no waiting between tries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with hub_server.running() as hub:
        # What HF_ENDPOINT, HF_HOME and HF_HUB_DISABLE_XET do, which are read when the package is imported.
        for name, value in dict(
            ENDPOINT=hub.url,
            HUGGINGFACE_CO_URL_TEMPLATE=hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            HF_HUB_CACHE=str(tmp_path / "hf" / "hub"),
            HF_TOKEN_PATH=str(tmp_path / "hf" / "token"),
            HF_STORED_TOKENS_PATH=str(tmp_path / "hf" / "stored_tokens"),
            HF_HUB_DISABLE_XET=True,
            HF_HUB_OFFLINE=False,
        ).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        close_session()
        yield hub
        close_session()


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Tiny files of RAR's authors, and the model that `vargen import` makes of them."""
    folder = tmp_path_factory.mktemp("published")
    published_files.publish("rar", folder)
    published_files.imported("rar", folder)
    return folder


@pytest.fixture
def authors(server, published):
    """hf://authors/rar, with those files."""
    repo = server.repos["authors/rar"] = hub_server.Repo()
    repo.commit({name: (published / name).read_bytes() for name in ("generator.npz", "tokenizer.npz")})
    return repo
