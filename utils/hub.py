"""The Hugging Face hub: what is checked before an upload, the upload, and the download of one file.

The login is the hub's own (`hf auth login`, or the environment variable HF_TOKEN). Nothing here takes, prints
or keeps a token.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError, first_line

# huggingface_hub is imported in the functions that use it: most commands never need it
REPO_NAME = r"\w[\w.-]*/\w[\w.-]*"   # USER/NAME
CARD_NAME = "README.md"
LOGIN = "Log in with: hf auth login"
PATIENCE = 60   # seconds, for the first answer of the hub over a slow connection


def check_upload(name: str) -> None:
    """Raise UserError if nothing can be uploaded to `name` (USER/NAME), because of its form, the network, the
    login or the rights of the login."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import validate_repo_id

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{name}: nothing can be uploaded while HF_HUB_OFFLINE is set. Unset it, or upload "
                        f"later.")
    with explained(name):
        validate_repo_id(name)
        who = HfApi().whoami()
    owner, owners = name.split("/")[0], [who["name"], *(org["name"] for org in who.get("orgs", []))]
    if owner.casefold() not in map(str.casefold, owners):
        raise UserError(f"{name}: you are logged in to the hub as {who['name']}, and cannot write what "
                        f"belongs to {owner}. Name it {who['name']}/{name.split('/')[1]}, or log in as "
                        f"{owner}.")
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"{name}: your login to the hub may read and not write. Make a token that may write "
                        f"at {constants.ENDPOINT}/settings/tokens. {LOGIN}")


def upload(name: str, files: Mapping[str, Path | bytes], message: str) -> str:
    """Put {path in the repository: file or its content} into the model repository `name`, and return its
    address.

    A repository that does not exist is made. An existing model card is kept: its owner may have added to it.

    All files arrive in one commit, or none. Raises UserError if the hub does not take them.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with explained(name):
        address = HfApi().create_repo(name, exist_ok=True)
        if HfApi().file_exists(name, CARD_NAME):
            print(f"README.md of {name} is kept as it is. Delete it there for a new one.")
            files = {path: file for path, file in files.items() if path != CARD_NAME}
        HfApi().create_commit(name, [CommitOperationAdd(path, file if isinstance(file, bytes) else str(file))
                                     for path, file in files.items()], commit_message=message)
    return str(address)


def download(name: str, file: str) -> Path | None:
    """Return the local path of a file of the repository `name`, downloaded if need be; None if the repository
    has no such file. Raises UserError if the repository does not exist or cannot be reached."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with explained(name):
        try:
            return fetch(name, file)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None


def fetch(name: str, file: str) -> Path:
    """Return the local path of a file of the repository `name`, downloaded if need be.

    Raises the hub's own errors. What is not on this machine is asked for once before it is downloaded:
    without a network, hf_hub_download would try six times, over 23 s.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    is_here = isinstance(try_to_load_from_cache(name, file), str)
    if not is_here and not constants.HF_HUB_OFFLINE:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=PATIENCE)
    return Path(hf_hub_download(name, file))


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors of the hub about the repository `name` into a UserError of one line."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except HFValidationError:
        reason = "is no name of a model on the hub. It has the form USER/NAME."
    except LocalTokenNotFoundError:
        reason = f"you are not logged in to the hub. {LOGIN}"
    except LocalEntryNotFoundError:
        reason = ("is not on this machine, and the hub cannot be reached. Check the network and "
                  "HF_HUB_OFFLINE, or name a local folder.")
    except RepositoryNotFoundError:
        reason = f"there is no such model on the hub, or your login may not see it. {LOGIN}"
    except HfHubHTTPError as error:
        reason = answer(error)
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = f"the hub cannot be reached ({first_line(error)}). Check the network."
    else:
        return
    raise UserError(f"{name}: {reason}")


def answer(error) -> str:
    """Return what it means that the hub refused a request."""
    status = error.response.status_code
    if status == 401:
        return f"the hub does not know your login. {LOGIN}"
    if status == 403:
        return f"your login to the hub may not do this ({error.server_message or 'forbidden'}). {LOGIN}"
    return f"the hub answered {status} ({error.server_message or first_line(error)}). Try again later."
