"""The hub: uploads and downloads through huggingface_hub, and one line for everything that can be wrong."""

import pytest
from huggingface_hub import constants

from models.base_folder import find_base
from tests.hub_server import Hub
from utils.errors import UserError
from utils.hub import check_upload, download, upload

FILES = {"README.md": b"---\ntags: [a]\n---\n", "a.safetensors": b"weights"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    hub.connect(monkeypatch, tmp_path)
    yield hub
    hub.server.shutdown()


def push():
    return upload("jo/dance", FILES, "a motion")


def test_what_is_uploaded_is_downloaded(hub, monkeypatch):
    check_upload("jo/dance")
    check_upload("Studio/dance")   # of an organization
    assert push() == f"{hub.endpoint}/jo/dance"
    assert hub.repositories["jo/dance"] == FILES
    assert any(call.startswith("PUT /lfs/") for call in hub.calls)   # weights are large files there
    path = download("jo/dance", "a.safetensors")
    assert path.read_bytes() == b"weights" and download("jo/dance", "b.safetensors") is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download("jo/dance", "a.safetensors") == path   # it is here


@pytest.mark.parametrize("call, refused, line", [
    (lambda: check_upload("jo/x"), {"whoami": 401}, "jo/x: the hub does not know your login. Log in "),
    (lambda: check_upload("jo/x"), {"whoami": 503}, "jo/x: the hub answered 503 (You may not do this). Try "),
    (lambda: check_upload("sam/x"), {}, "logged in to the hub as jo, and cannot write what belongs to sam."),
    (lambda: check_upload("jo/a--b"), {}, "jo/a--b: is no name of a model on the hub."),
    (push, {"repos/create": 403}, "jo/dance: your login to the hub may not do this (You may not do this)"),
    (push, {"/commit/": 403}, "jo/dance: your login to the hub may not do this"),
    (push, {"/commit/": 409}, "jo/dance: the hub answered 409 (You may not do this). Try again later."),
    (lambda: download("jo/nothing", "a"), {}, "jo/nothing: there is no such model on the hub"),
])
def test_what_the_hub_refuses_is_one_line(hub, call, refused, line):
    hub.refused = refused
    with pytest.raises(UserError) as caught:
        call()
    (problem,) = caught.value.problems
    assert line in problem


@pytest.mark.parametrize("name, value, lines", [
    ("HF_HUB_OFFLINE", True, ["jo/dance: nothing can be uploaded while HF_HUB_OFFLINE is set.",
                              "jo/dance: is not on this machine, and the hub cannot be reached."]),
    ("ENDPOINT", "http://127.0.0.1:9", ["jo/dance: the hub cannot be reached"])])
def test_no_network_is_one_line(hub, monkeypatch, name, value, lines):
    monkeypatch.setattr(constants, name, value)
    calls = (lambda: check_upload("jo/dance"), lambda: download("jo/dance", "a"))
    for call, line in zip(calls, lines):
        with pytest.raises(UserError) as caught:
            call()
        (problem,) = caught.value.problems
        assert line in problem


def test_without_a_login_the_command_that_logs_in_is_said(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="jo/x: you are not logged in to the hub. Log in with: hf auth login"):
        check_upload("jo/x")


def test_login_that_may_only_read_is_told_before_an_upload(hub):
    hub.role = "read"
    with pytest.raises(UserError, match="jo/x: your login to the hub may read and not write."):
        check_upload("jo/x")


@pytest.mark.parametrize("ask", [lambda: download("jo/dance", "a"), lambda: find_base("jo/dance")])
def test_without_a_network_one_try_is_enough(hub, monkeypatch, ask):
    """The library itself would try six times, over 23 s."""
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits for another try"))
    with pytest.raises(UserError, match="jo/dance: the hub cannot be reached .* Check the network."):
        ask()


def test_base_on_the_hub_is_explained_in_the_same_words(hub):
    hub.repositories["jo/dance"] = {"a.safetensors": b"weights"}
    problems = {"jo/nothing": "there is no such model on the hub, or your login may not see it.",
                "jo/dance": "has no model_index.json on the hub, so it is not a diffusers pipeline."}
    for name, words in problems.items():
        with pytest.raises(UserError, match=words):
            find_base(name)
