"""The page in a browser, and the sessions of browsers that have signed in to it."""

import getpass
import os
import sys
import webbrowser
from typing import Annotated

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.auth import SignInLink
from pubsubflow.model.auth import LOCAL, check_name

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


async def open_page(
    *,
    show: Annotated[bool, Parameter(name="--print")] = False,
    person: Annotated[str | None, Parameter(name="--as")] = None,
    target: Target = DEFAULT,
) -> None:
    """Open the page in a browser, signed in by a link that works once.

    Without a display it prints the link, for a browser elsewhere.

    Args:
        show: Print the link rather than open a browser.
        person: Name that the audit log shows, with `local:` before it; that of your account if left
            out. With a token its name counts.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        link = await _link(client, person)
    url = f"{client.url.rstrip('/')}{link.path}"
    if target.json:
        output.show_json({"url": url, "name": link.name, "expires_at": link.expires_at})
        return
    until = output.moment(link.expires_at)
    if not show and _has_display() and webbrowser.open(url):
        output.show(f"opened {client.url}/ui/ as {link.name}")
        return
    output.warn(f"signs {link.name} in, once, until {until}:")
    output.show(url)


async def list_sessions(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List browsers that have signed in to the page, the newest first.

    Args:
        limit: How many at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.sessions(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("who", "from", "used", "signed in", "expires", "id", "browser"),
            narrow=4,
            elastic=["browser"],
            times=["used"],
        )
        async for session in found:
            listing.row(
                session.name,
                session.remote,
                output.brief(session.used_at),
                output.brief(session.created_at),
                output.brief(session.expires_at),
                session.id,
                session.agent,
            )
    listing.show(none="no browser has signed in")


async def revoke_session(number: str, /, *, target: Target = DEFAULT) -> None:
    """Revoke a session: the browser is signed out, with immediate effect.

    Args:
        number: Id of the session.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        ended = await client.revoke_session(number)
    output.show_result(ended, f"{ended.name} is signed out there", json=target.json)


async def _link(client: Client, person: str | None) -> SignInLink:
    """Return a link; without a token it names the person."""
    if person is None and (await client.me()).name == LOCAL:
        person = _account()
    return await client.create_sign_in_link(person)


def _account() -> str | None:
    """Return the name of the account that runs this; None where it does not name a person."""
    try:
        return check_name(getpass.getuser())
    except (InvalidInput, OSError, KeyError):
        return None


def _has_display() -> bool:
    return sys.platform != "linux" or any(os.environ.get(name) for name in _DISPLAYS)
