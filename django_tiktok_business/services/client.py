"""Call the Accounts API on behalf of one account, with a token that is always fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

from django_tiktok_business.api import factory
from django_tiktok_business.api.client import TikTokClient
from django_tiktok_business.api.envelope import Envelope
from django_tiktok_business.api.oauth import OAuth, TokenInfo
from django_tiktok_business.api.profile import BusinessProfile, Profile
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import AccessTokenRejectedError
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.sync.profile import fields_for

from .access import database_of, get_access_token, refresh_row

T = TypeVar("T")

RENEWALS = 2  # of a token that TikTok rejects, within one call


def account_client(account: BusinessAccount) -> AccountClient:
    """Return an `AccountClient`, which calls the Accounts API on behalf of ``account``."""
    return AccountClient(account)


class AccountClient:
    """Calls the Accounts API on behalf of one account, with a token that is always fresh.

    If TikTok rejects the token, it is refreshed and the call is repeated, at most twice; then
    `AccessTokenRejectedError` is raised. The account stays active: only TikTok's refresh endpoint
    can say that it has to be connected again. Data endpoints also reject tokens that they have not
    heard of yet, or that are of another kind.

    A context manager that closes its HTTP connections. Not thread-safe.
    """

    def __init__(self, account: BusinessAccount) -> None:
        self.account = account
        clock.synchronize(database_of(account))
        self._client = factory.client_from_settings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the HTTP connections."""
        self._client.close()

    def profile(self, *, fields: Iterable[str] | None = None) -> Profile:
        """Return the profile; ``fields`` (TikTok's names) default to what the scopes allow."""
        wanted = fields or fields_for(self.account.granted_scopes)
        return BusinessProfile(self, self.account.open_id).profile(wanted)

    def token_info(self) -> TokenInfo:
        """Return the account and the scopes that TikTok knows the access token for."""
        return self.with_token(lambda client: OAuth(client).token_info(self.account.access_token))

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call any endpoint of the Accounts API and return the ``data`` of the response.

        ``path`` is relative to API_BASE_URL, for example ``"business/video/list/"``. The account's
        ``business_id`` is added. Lists and objects in ``params`` are sent as JSON. Reads are
        retried after temporary errors; writes only if TikTok cannot have acted on them.
        """
        is_read = method.upper() == "GET"
        business_id = {"business_id": self.account.open_id}
        query = {**business_id, **(params or {})} if is_read else params
        body = None if is_read else {**business_id, **(json or {})}
        return self.with_token(lambda client: client.request(method, path, query=query, body=body))

    def get(self, path: str, query: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Read, for the endpoint groups of `api`; see `api.client.Caller`."""
        return self.with_token(
            lambda client: client.get(path, query, is_data_needed=is_data_needed)
        )

    def post(self, path: str, body: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Write, for the endpoint groups of `api`; see `api.client.Caller`."""
        return self.with_token(
            lambda client: client.post(path, body, is_data_needed=is_data_needed)
        )

    def with_token(self, call: Callable[[TikTokClient], T]) -> T:
        """Run ``call`` with a client that sends a fresh token.

        While TikTok rejects the token, ``call`` is run again with a newer one, RENEWALS times.
        """
        token = get_access_token(self.account)
        for _ in range(RENEWALS):
            try:
                return call(self._client.authorized(token))
            except AccessTokenRejectedError:
                token = self._newer_than(token)
        return call(self._client.authorized(token))

    def _newer_than(self, rejected: str) -> str:
        # Another worker may have refreshed the row since this account was loaded. Compared by the
        # token itself: a project may have stored a pair without reading the version back.
        refresh_row(
            self.account, is_fresh_enough=lambda row: row.access_token not in ("", rejected)
        )
        renewed: str = self.account.access_token
        return renewed
