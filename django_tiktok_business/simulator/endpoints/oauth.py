"""`/tt_user/`: exchange a code, refresh, revoke and inspect tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_tiktok_business.simulator.wire import RefusedError

from .base import ApiCall, Group

endpoints = Group()


@endpoints.post("/tt_user/oauth2/token/")
def token(call: ApiCall) -> Mapping[str, Any]:
    """Exchange an authorization code for a pair of tokens."""
    fields = call.body_fields(
        "client_id", "client_secret", "grant_type", "auth_code", "redirect_uri"
    )
    _check_grant_type(fields, "authorization_code")
    app = call.check_app(fields["client_id"], secret=fields["client_secret"])
    grants = call.store.grants
    grant = grants.exchange(fields["auth_code"], app.app_id, fields["redirect_uri"], call.now)
    call.trace.open_id = grant.open_id
    return grants.token_response(grant, call.now)


@endpoints.post("/tt_user/oauth2/refresh_token/")
def refresh_token(call: ApiCall) -> Mapping[str, Any]:
    """Issue a new access token, and a new refresh token if the settings rotate it."""
    # One summary of the documentation requires redirect_uri here; nine clients omit it.
    fields = call.body_fields(
        "client_id", "client_secret", "grant_type", "refresh_token", ignored=("redirect_uri",)
    )
    _check_grant_type(fields, "refresh_token")
    app = call.check_app(fields["client_id"], secret=fields["client_secret"])
    grants = call.store.grants
    known = grants.grant_of_refresh_token(fields["refresh_token"])
    if known is not None:
        call.check_account_rate(known)
    grant = grants.refresh(fields["refresh_token"], app.app_id, call.now)
    return grants.token_response(grant, call.now)


@endpoints.post("/tt_user/oauth2/revoke/")
def revoke(call: ApiCall) -> Mapping[str, Any]:
    """End the grant that the access token belongs to."""
    fields = call.body_fields("client_id", "client_secret", "access_token")
    app = call.check_app(fields["client_id"], secret=fields["client_secret"])
    grant = call.grant_of(fields["access_token"], app)
    call.store.grants.revoke(grant.open_id)
    return {}


@endpoints.post("/tt_user/token_info/get/")
def token_info(call: ApiCall) -> Mapping[str, Any]:
    """Return the app, account and scopes of an access token."""
    fields = call.body_fields("app_id", "access_token")
    app = call.check_app(fields["app_id"], secret=None)
    grant = call.grant_of(fields["access_token"], app)
    return {
        "app_id": grant.app_id,
        "creator_id": grant.open_id,
        "scope": call.store.grants.scope_text(grant),
    }


def _check_grant_type(fields: Mapping[str, str], expected: str) -> None:
    if fields["grant_type"] != expected:
        raise RefusedError(40108, "grant_type is not supported.")
