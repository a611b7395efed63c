"""Signing in by OpenID Connect: what is decided without a provider."""

import pytest

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.oidc.attempt import SignInAttempt, safe_path
from pubsubflow.api.oidc.id_token import Expected, check_claims
from pubsubflow.api.oidc.routes import person_of
from pubsubflow.api.oidc.settings import OidcSettings
from pubsubflow.errors import ConfigError
from pubsubflow.model.auth import Grant, Role

CLIENT = "psf"


def settings(**more):
    return OidcSettings(issuer="https://id.example.org", client_id=CLIENT, **more)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "of another sign-in"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"aud": "other"}, "aud"),
        ({"aud": [CLIENT, "other"]}, "azp"),
        ({"aud": [CLIENT], "azp": "other"}, "azp"),
        ({"exp": 1000}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": 10_000_000_000}, "from the future"),
        ({"sub": None}, "sub"),
    ],
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(claims, reason):
    """Without a server: what is checked of the claims is a function of them."""
    expected = Expected(issuer="i", client_id=CLIENT, nonce="n", now=1e9, leeway=60)
    good = {"iss": "i", "aud": CLIENT, "sub": "1", "exp": 1e9 - 59, "iat": 1e9 + 59, "nonce": "n"}
    check_claims(good, expected)
    wrong = {name: value for name, value in {**good, **claims}.items() if value is not None}
    with pytest.raises(BadRequest, match=reason):
        check_claims(wrong, expected)


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/ui//evil.example", "/ui/%5C..", "/x", ""]
)
def test_next_leads_to_the_page_alone(to):
    assert safe_path(to.replace("%5C", "\\")) == "/ui/"
    assert safe_path("/ui/runs/1?tab=why&state=failed") == "/ui/runs/1?tab=why&state=failed"


def test_an_attempt_survives_its_cookie_and_forged_ones_lead_nowhere():
    begun = SignInAttempt.begin("/ui/runs", 1000.0)
    assert SignInAttempt.from_cookie(begun.to_cookie()) == begun
    forged = SignInAttempt(begun.state, "n", "v", "https://evil.example", 1e12)
    assert SignInAttempt.from_cookie(forged.to_cookie()).to == "/ui/"
    for text in ("", "x", "é", begun.to_cookie()[:-4], "W10"):
        assert SignInAttempt.from_cookie(text) is None
    assert len(begun.challenge) == 43


def test_groups_become_the_greatest_role_and_all_grants():
    roles = {"a": ("viewer", "operator:dag=x"), "b": ("operator",), "c": ("admin:tag=t",)}
    found = person_of(
        {"sub": "1", "email": "al ice@x", "groups": ["a", "b", "c", "d", 5]}, settings(roles=roles)
    )
    assert (found.name, found.role) == ("oidc:al%20ice@x", Role.OPERATOR)
    assert found.grants == (Grant.parse("operator:dag=x"), Grant.parse("admin:tag=t"))
    only = person_of({"sub": "1", "groups": "c"}, settings(roles=roles))
    assert (only.name, only.role) == ("oidc:1", Role.EMITTER)
    # An address that nobody has verified may be that of somebody else.
    claims = {"sub": "1", "email": "boss@x", "email_verified": False, "groups": ["a"]}
    assert person_of(claims, settings(roles=roles)).name == "oidc:1"
    for groups in (None, [], ["d"], {"a": 1}):
        with pytest.raises(BadRequest, match=r"\[oidc.roles\]"):
            person_of({"sub": "1", "groups": groups}, settings(roles=roles))


@pytest.mark.parametrize(
    "more",
    [
        {"issuer": "http://id.example.org"},
        {"issuer": "id.example.org"},
        {"client_id": ""},
        {"public_url": "http://psf.example.org"},
        {"client_secret": "a", "client_secret_file": "/x"},
        {"scopes": ("profile",)},
        {"roles": {"g": ("owner",)}},
        {"roles": {"g": ("emitter",)}},
    ],
)
def test_settings_that_do_not_work_are_refused(more):
    with pytest.raises(ConfigError, match="oidc"):
        OidcSettings(**{"issuer": "https://id.example.org", "client_id": CLIENT, **more})
    assert "hidden" not in repr(settings(client_secret="hidden"))
