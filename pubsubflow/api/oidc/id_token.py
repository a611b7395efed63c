"""ID tokens, checked as OpenID Connect Core 1.0 (§3.1.3.7) demands."""

import hmac
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from msgspec import Struct

from pubsubflow.api.http.problems import BadRequest

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by a key of the provider: neither `none`, nor those with a shared secret."""

_MAX_TOKEN = 64 * 1024


class UnknownKey(Exception):  # noqa: N818 - never leaves this package
    """A token is signed by a key that is not among the known ones."""


class Expected(Struct, frozen=True, kw_only=True):
    """What an ID token has to say.

    Attributes:
        nonce: What the browser was sent away with.
        now: Seconds since 1970.
        leeway: By how many seconds the clocks may differ.
    """

    issuer: str
    client_id: str
    nonce: str
    now: float
    leeway: float


def not_valid(reason: str) -> BadRequest:
    """Return the refusal of an ID token."""
    return BadRequest(f"the ID token of the provider is not valid: {reason}", status=401)


def read_claims(token: str, keys: Any, expected: Expected) -> dict[str, Any]:
    """Return the claims of an ID token.

    Args:
        token: The token.
        keys: The provider's keys, as the library has read them.
        expected: What it has to say.

    Raises:
        UnknownKey: It is signed by none of these keys.
        BadRequest: It is not valid.
    """
    errors, jwt = import_module("joserfc.errors"), import_module("joserfc.jwt")
    if len(token) > _MAX_TOKEN:
        raise not_valid("it is too long")
    try:
        claims = dict(jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims)
    except (errors.InvalidKeyIdError, errors.MissingKeyError) as error:
        raise UnknownKey from error
    except (errors.JoseError, ValueError) as error:
        raise not_valid(str(error) or type(error).__name__) from error
    check_claims(claims, expected)
    return claims


def check_claims(claims: Mapping[str, Any], expected: Expected) -> None:
    """Check whom a token is of, for whom and for when it is.

    Raises:
        BadRequest: It is not for this sign-in.
    """
    if claims.get("iss") != expected.issuer:
        raise not_valid(f"it is of issuer {claims.get('iss')!r}, not {expected.issuer!r}")
    audience = claims.get("aud")
    # A single audience may be a text (RFC 7519, §4.1.3).
    audience = [audience] if isinstance(audience, str) else audience
    if not isinstance(audience, list) or expected.client_id not in audience:
        raise not_valid("it is for another client (aud)")
    party = claims.get("azp")
    if (len(audience) > 1 and party is None) or party not in (None, expected.client_id):
        raise not_valid("it was issued to another client (azp)")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise not_valid("it names no person (sub)")
    if _seconds(claims, "exp") <= expected.now - expected.leeway:
        raise not_valid("it has expired: compare the clocks of the provider and of this machine")
    for name in ("iat", *({"nbf"} & claims.keys())):
        if _seconds(claims, name) > expected.now + expected.leeway:
            raise not_valid(f"it is from the future ({name}): compare the clocks")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode(), expected.nonce.encode()
    ):
        raise not_valid("it is of another sign-in (nonce): sign in again")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise not_valid(f"it does not say {name}")
    return value
