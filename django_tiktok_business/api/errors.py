"""TikTok's return codes and the error each one becomes, in one table.

The codes are those of TikTok's page "Appendix: return codes" (doc id 1737172488964097) and of its
official Python SDK, as read until 2026-11-22.
"""

from __future__ import annotations

from django_tiktok_business.exceptions import (
    AccessTokenRejectedError,
    APIError,
    AppConfigurationError,
    AppCredentialsRejectedError,
    AuthorizationCodeRejectedError,
    PermissionDeniedError,
    RateLimitError,
    ReauthorizationRequired,
    ServerError,
)

PARTIAL_SUCCESS = 20001

# One line per code, with the name that TikTok's SDK gives it. Any other code, outside the range
# below, becomes an APIError: the call is not repeated, and the account keeps its status.
ERRORS: dict[int, type[APIError]] = {
    40001: PermissionDeniedError,  # PERMISSION_ERROR
    40006: AppConfigurationError,  # VERSION_ERROR
    40008: AppConfigurationError,  # NOT_IMPL
    40010: AppConfigurationError,  # UNSUPPORTED_DOMAIN
    40016: RateLimitError,  # BIZ_FC_ERROR
    40051: AppConfigurationError,  # INVALID_API_VERSION
    40100: RateLimitError,  # REQUEST_TOO_FREQUENT
    40101: AppCredentialsRejectedError,  # INVALID_PARTNER
    40102: AccessTokenRejectedError,  # ACCESS_TOKEN_EXPIRE
    40104: AppConfigurationError,  # EMPTY_ACCESS_TOKEN
    40105: AccessTokenRejectedError,  # INVALID_ACCESS_TOKEN
    40108: AppConfigurationError,  # INVALID_GRANT_TYPE
    40113: AppCredentialsRejectedError,  # APP_FORBIDDEN
    40116: AppConfigurationError,  # AUTH_SIG_ERROR
    40117: AppConfigurationError,  # APP_METHOD_FORBIDDEN
    40118: AppConfigurationError,  # NOT_IN_WHITELIST
    40124: AppCredentialsRejectedError,  # DEVELOPER_REJECTED
    40125: AppCredentialsRejectedError,  # DEVELOPER_NO_PERMISSION
    40130: PermissionDeniedError,  # SCOPE_NOT_AUTHORIZED
    40131: AccessTokenRejectedError,  # SCOPE_TT_USER_OAUTH_FAILED, on a data call
    40132: RateLimitError,  # REQUEST_FREQUENCY_LIMITED
    40133: RateLimitError,  # too frequent (appendix only)
    40202: ServerError,  # WRITE_CONFLICT
    40902: ServerError,  # a file could not be fetched; likewise the next two (appendix only)
    40903: ServerError,
    40913: ServerError,
    40400: AppConfigurationError,  # ROUTE_NOT_FOUND
    41000: AppConfigurationError,  # BLOCKED: the caller's address
    41001: AppConfigurationError,  # INTERFACE_OFFLINE
    41002: AppConfigurationError,  # FIELDS_OFFLINE
    60001: ServerError,  # MAINTENANCE
    61000: RateLimitError,  # TOO_MANY_REQUESTS_BL
}

# The same code can mean something else at the token endpoints.
CODE_EXCHANGE_ERRORS: dict[int, type[APIError]] = {
    40110: AuthorizationCodeRejectedError,  # AUTH_CODE_ERROR
    40115: AuthorizationCodeRejectedError,  # AUTH_TIMESTAMP_EXPIRE
    40120: AuthorizationCodeRejectedError,  # TIKTOK_USER_NOT_LOGGED_IN
    40131: AuthorizationCodeRejectedError,  # SCOPE_TT_USER_OAUTH_FAILED
}
REFRESH_ERRORS: dict[int, type[APIError]] = {
    40103: ReauthorizationRequired,  # REFRESH_TOKEN_EXPIRE
    40107: ReauthorizationRequired,  # INVALID_REFRESH_TOKEN
    40131: ReauthorizationRequired,  # SCOPE_TT_USER_OAUTH_FAILED
    # A rejected access token says nothing about the refresh token that was sent.
    40102: APIError,
    40105: APIError,
}


def error_of_range(code: int) -> type[APIError]:
    """The error for a code outside the tables; 50000-53999 are faults of TikTok's servers."""
    return ServerError if 50000 <= code < 54000 else APIError
