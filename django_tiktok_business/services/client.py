"""The Accounts API for one account, always with a fresh token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from django_tiktok_business.api import factory
from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.api.profile import BusinessProfile
from django_tiktok_business.db import clock
from django_tiktok_business.exceptions import AccessTokenRejectedError, TikTokBusinessError
from django_tiktok_business.sync import profile as profile_sync
from django_tiktok_business.tokens import storage

from .access import database_of, get_access_token, refresh_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django_tiktok_business.api.client import TikTokClient
    from django_tiktok_business.api.envelope import Envelope
    from django_tiktok_business.api.oauth import TokenInfo
    from django_tiktok_business.api.profile import Profile
    from django_tiktok_business.models import BusinessAccount


__all__ = ["AccountClient", "account_client"]

T = TypeVar("T")


def account_client(account: BusinessAccount) -> AccountClient:
    """A client of the Accounts API that acts for ``account``; see `AccountClient`."""
    return AccountClient(account)


class AccountClient:
    """The Accounts API for one account, always with a fresh token.

    A token that TikTok does not accept is renewed and the call repeated once; when the fresh token
    is not accepted either, and TikTok does not know it, the account needs a new consent. Not
    thread-safe. Usable in ``with``.
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
        """Give the HTTP connections back."""
        self._client.close()

    def profile(self, *, fields: Iterable[str] | None = None) -> Profile:
        """The account's profile; ``fields`` (TikTok's names) default to what the scopes allow."""
        wanted = fields or profile_sync.fields_for(self.account.granted_scopes)
        return BusinessProfile(self, self.account.open_id).profile(wanted)

    def token_info(self) -> TokenInfo:
        """Which account and scopes TikTok says the access token has."""
        return self.with_token(lambda client: OAuth(client).token_info(self.account.access_token))

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call any endpoint of the Accounts API and return the answer's ``data``.

        ``path`` is relative to API_BASE_URL, for example ``"business/video/list/"``. The account's
        ``business_id`` is added. Lists and objects in ``params`` become JSON text. Reads are
        repeated after passing errors; writes only when TikTok cannot have acted on them.
        """
        is_read = method.upper() == "GET"
        business_id = {"business_id": self.account.open_id}
        query = {**business_id, **(params or {})} if is_read else params
        body = None if is_read else {**business_id, **(json or {})}
        return self.with_token(lambda client: client.request(method, path, query=query, body=body))

    def get(self, path: str, query: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Read for the groups of endpoints; see `api.client.Caller`."""
        return self.with_token(
            lambda client: client.get(path, query, is_data_needed=is_data_needed)
        )

    def post(self, path: str, body: Mapping[str, Any], *, is_data_needed: bool = True) -> Envelope:
        """Write for the groups of endpoints; see `api.client.Caller`."""
        return self.with_token(
            lambda client: client.post(path, body, is_data_needed=is_data_needed)
        )

    def with_token(self, call: Callable[[TikTokClient], T]) -> T:
        """Make ``call`` with a client that sends a fresh token, and once more if it is rejected."""
        token = get_access_token(self.account)
        try:
            return call(self._client.authorized(token))
        except AccessTokenRejectedError:
            rejected_version = self.account.credentials_version
        # Another worker may have renewed the tokens since this account was loaded.
        refresh_row(
            self.account,
            is_fresh_enough=lambda row: row.credentials_version > rejected_version,
        )
        try:
            return call(self._client.authorized(self.account.access_token))
        except AccessTokenRejectedError as error:
            if self._is_token_accepted():
                raise  # nothing is wrong with the connection: the endpoint is not for such tokens
            raise storage.mark_rejected(self.account, error, database_of(self.account)) from None

    def _is_token_accepted(self) -> bool:
        """Whether TikTok knows the token; True also when that cannot be found out."""
        try:
            OAuth(self._client).token_info(self.account.access_token)
        except AccessTokenRejectedError:
            return False
        except TikTokBusinessError:
            return True
        return True
