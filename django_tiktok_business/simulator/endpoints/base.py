"""What endpoints share: how to declare one, and checks of app, token, rate limit and parameters.

To add a group of endpoints, write a module like `profile` and list it in `routes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django_tiktok_business.simulator.apps import App
from django_tiktok_business.simulator.grants import Grant
from django_tiktok_business.simulator.store import Store
from django_tiktok_business.simulator.wire import (
    RefusedError,
    Request,
    Trace,
    json_object,
    single_values,
)

API_PREFIX = "/open_api/v1.3"


@dataclass
class ApiCall:
    """One API request, with the checks that an endpoint makes before it responds.

    Each check raises `RefusedError` with TikTok's code. The order of the checks is the endpoint's:
    it decides which error a request with several mistakes gets. `now` is in Unix seconds.
    """

    store: Store
    request: Request
    now: float
    trace: Trace

    def check_app(self, app_id: str, *, secret: str | None) -> App:
        """Return the calling app and count the call; `secret` is None if the endpoint takes none.

        The appendix lists both 40101 and 40113 for wrong credentials. It is unknown which one
        TikTok sends, so `Settings.wrong_secret_code` decides.
        """
        settings = self.store.settings
        app = self.store.apps.get(app_id)
        if app is None or secret not in (None, app.secret):
            raise RefusedError(settings.wrong_secret_code, "App id and app secret do not match.")
        self._check_rate(("app", app_id), settings.app_calls_per_minute)
        return app

    def grant_of(self, access_token: str, app: App) -> Grant:
        """Return the app's grant behind an access token, and count the call."""
        grant = self.store.grants.grant_of_access_token(access_token, self.now)
        if grant.app_id != app.app_id:
            raise RefusedError(40105, "Access token is incorrect or has been revoked.")
        self.check_account_rate(grant)
        return grant

    def grant_of_header(self) -> Grant:
        """Return the grant behind the Access-Token header; count the call for app and account."""
        token = self.request.headers.get("access-token", "")
        if not token:
            raise RefusedError(
                40104,
                "Access token is null, you should set it in http header with key Access-Token.",
            )
        grant = self.store.grants.grant_of_access_token(token, self.now)
        self.check_app(grant.app_id, secret=None)
        self.check_account_rate(grant)
        return grant

    def check_account_rate(self, grant: Grant) -> None:
        """Count the call for its account and endpoint, and name the account in the log."""
        self.trace.open_id = grant.open_id
        limit = self.store.settings.account_calls_per_minute
        self._check_rate((grant.open_id, self.request.path), limit)

    def _check_rate(self, key: tuple[str, str], limit: int) -> None:
        settings = self.store.settings
        if settings.rate_limits and not self.store.rate_limits.allows(
            key, limit, self.now, settings.rate_penalty_seconds
        ):
            raise RefusedError(
                40100,
                "Due to too many requests, requests from App are temporarily restricted.",
            )

    def body_fields(self, *names: str, ignored: tuple[str, ...] = ()) -> dict[str, str]:
        """Return the fields of the JSON body; each name is required and its value a string."""
        document = json_object(self.request)
        missing = [name for name in names if document.get(name) in (None, "")]
        if missing:
            raise RefusedError(40002, f"Missing required field(s): {', '.join(missing)}.")
        unknown = sorted(set(document) - set(names) - set(ignored))
        if unknown:
            raise RefusedError(40002, f"Unknown field(s): {', '.join(unknown)}.")
        wrong = [name for name in names if not isinstance(document[name], str)]
        if wrong:
            raise RefusedError(40002, f"Must be a string: {', '.join(wrong)}.")
        return {name: document[name] for name in names}

    def query_parameters(self, *names: str, optional: tuple[str, ...] = ()) -> dict[str, str]:
        """Return the query parameters; each name is required, and none may occur twice."""
        try:
            parameters = single_values(self.request.pairs)
        except ValueError as error:
            raise RefusedError(40002, f"Parameter given twice: {error}.") from None
        unknown = sorted(set(parameters) - set(names) - set(optional))
        if unknown:
            raise RefusedError(40002, f"Unknown parameter(s): {', '.join(unknown)}.")
        missing = [name for name in names if not parameters.get(name)]
        if missing:
            raise RefusedError(40002, f"Missing required field(s): {', '.join(missing)}.")
        return parameters


def no_permission(business_id: str) -> RefusedError:
    """Return the error for an account that the token does not cover or that withholds its data."""
    return RefusedError(40001, f"No permission to operate tiktok creator id: {business_id}")


Respond = Callable[[ApiCall], Mapping[str, Any]]


@dataclass(frozen=True)
class Endpoint:
    """An entry of the routing table; `respond` returns the `data` of a successful response."""

    method: str
    path: str
    respond: Respond


class Group:
    """The endpoints of one module; `get` and `post` are decorators that add one."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def get(self, path: str) -> Callable[[Respond], Respond]:
        return self._adding("GET", path)

    def post(self, path: str) -> Callable[[Respond], Respond]:
        return self._adding("POST", path)

    def _adding(self, method: str, path: str) -> Callable[[Respond], Respond]:
        def add(respond: Respond) -> Respond:
            self._endpoints.append(Endpoint(method, path, respond))
            return respond

        return add
