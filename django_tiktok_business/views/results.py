"""The results of connecting and disconnecting: HTTP status, texts and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from django_tiktok_business.exceptions import (
    AccountOwnedByAnotherUserError,
    AppConfigurationError,
    AuthorizationCodeRejectedError,
    InvalidResponseError,
    RetryableError,
    TikTokBusinessError,
)

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True)
class Result:
    """``retry`` labels the button that starts again; "" for no button."""

    status: int
    title: StrOrPromise
    text: StrOrPromise
    retry: StrOrPromise = ""


_START_AGAIN = _("Start again")
NOT_ALLOWED = Result(
    403,
    _("You may not connect TikTok accounts"),
    _("Ask an administrator of this site for the permission."),
)
LOGGED_OUT = Result(
    403,
    _("You are not logged in here any more"),
    _(
        "Nothing was connected. Log in and start again, in the same browser and with its cookies "
        "allowed."
    ),
    _("Log in and start again"),
)
AMBIGUOUS = Result(
    400,
    _("This answer is not one of TikTok's"),
    _("Its address says the same thing twice. Nothing was connected."),
    _START_AGAIN,
)
UNKNOWN_STATE = Result(
    400,
    _("This answer does not match a connection you started"),
    _(
        "You may have started in another browser, or before you logged in again. Nothing was "
        "connected."
    ),
    _START_AGAIN,
)
OTHER_USER = Result(
    403,
    _("Somebody else started this"),
    _("You are logged in as another user than the one who went to TikTok. Nothing was connected."),
    _START_AGAIN,
)
EXPIRED = Result(
    400,
    _("That took too long"),
    _("For safety an answer counts for a few minutes only. Nothing was connected."),
    _START_AGAIN,
)
ALREADY_USED = Result(
    409,
    _("This answer was used already"),
    _("Each answer of TikTok counts once. Look at your accounts before you start again."),
    _START_AGAIN,
)
ALREADY_CONNECTED = Result(
    200,
    _("The account is connected already"),
    _("This page was opened a second time. There is nothing more to do."),
)
TOO_MANY_STARTS = Result(
    429,
    _("That was too often"),
    _("You have started to connect very often within a minute. Wait a minute, then start again."),
    _START_AGAIN,
)
TOO_MANY_RESPONSES = Result(
    429,
    _("That was too often"),
    _("This answer was not looked at, so it is not lost. Wait a minute, then reload this page."),
)
DENIED = Result(
    200,
    _("No access was given"),
    _(
        "You or TikTok said no, so nothing was connected and nothing has changed. If you have "
        "changed your mind, just try again."
    ),
    _("Try again"),
)
NO_CODE = Result(
    400,
    _("TikTok's answer is incomplete"),
    _("It lacks the code that the connection is made with. Nothing was connected."),
    _START_AGAIN,
)
CODE_REJECTED = Result(
    400,
    _("TikTok did not accept its answer any more"),
    _("An approval counts once and for a few minutes only. Nothing was connected."),
    _START_AGAIN,
)
OWNED_BY_ANOTHER = Result(
    409,
    _("Somebody else has connected this TikTok account"),
    _(
        "It stays theirs. Ask them, or an administrator of this site, or connect another account: "
        "TikTok takes the one that is logged in there."
    ),
    _("Connect another account"),
)
INVALID_RESPONSE = Result(
    502,
    _("TikTok's answer could not be understood"),
    _("Nothing was connected. This passes as a rule: start again in a few minutes."),
    _START_AGAIN,
)
TRY_LATER = Result(
    503,
    _("It did not work just now"),
    _("TikTok could not be reached, or is busy. Start again in a few minutes."),
    _START_AGAIN,
)
SITE_REFUSED = Result(
    502,
    _("TikTok does not accept this site"),
    _(
        "Its TikTok app is not set up as it should be, so nobody can connect at present. Tell "
        "whoever runs the site."
    ),
)
REFUSED = Result(
    502,
    _("TikTok refused"),
    _("Nothing was connected. Start again. If it fails again, tell whoever runs the site."),
    _START_AGAIN,
)
NOT_STORED = Result(
    503,
    _("The account could not be saved"),
    _("TikTok agreed, but this site's database did not. Start again in a few minutes."),
    _START_AGAIN,
)
NOT_DISCONNECTED = Result(
    503,
    _("The account is still connected"),
    _("Somebody else is changing it, or this site's database is busy. Try again in a minute."),
)
MISCONFIGURED = Result(
    503,
    _("This site is not fully set up"),
    _("A setting for TikTok is missing or wrong. Tell whoever runs the site."),
)

# By type of error; the first match wins.
_RESULTS: tuple[tuple[type[TikTokBusinessError], Result], ...] = (
    (AuthorizationCodeRejectedError, CODE_REJECTED),
    (AccountOwnedByAnotherUserError, OWNED_BY_ANOTHER),
    (InvalidResponseError, INVALID_RESPONSE),
    (RetryableError, TRY_LATER),
    (AppConfigurationError, SITE_REFUSED),
    (TikTokBusinessError, REFUSED),
)


def from_error(error: TikTokBusinessError) -> Result:
    """The result that shows an error while connecting."""
    return next(result for kind, result in _RESULTS if isinstance(error, kind))
